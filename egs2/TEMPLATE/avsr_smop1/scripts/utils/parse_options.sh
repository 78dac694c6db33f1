# shellcheck shell=bash
# Sets variables from the command line; sourced after they have got their defaults.
#
# An option is what `help_message` explains: `--name VALUE` sets the variable `name`. Options with
# the default true or false take these two only. What follows the options stays in "$@".
# `--help` prints help_message and ends the script.

smop_option_error() {
    echo "$(basename "$0"): $*" >&2
    echo "Try '$0 --help'." >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            printf '%s\n' "${help_message:?}"
            exit 0
            ;;
        --) shift; break ;;
        --*=*) smop_option_error "write '${1%%=*} VALUE' instead of '$1'" ;;
        --*)
            smop_name="${1#--}"
            smop_name="${smop_name//-/_}"
            if ! [[ ${smop_name} =~ ^[a-z_0-9]+$ && -v ${smop_name} ]] \
                || ! grep -Eq -e "^ *--${smop_name}([^a-z_0-9]|$)" <<< "${help_message}"; then
                smop_option_error "there is no option $1"
            fi
            [ $# -ge 2 ] || smop_option_error "option $1 needs a value"
            case "${!smop_name}" in
                true | false)
                    case "$2" in
                        true | false) ;;
                        *) smop_option_error "$1 is true or false, not '$2'" ;;
                    esac
                    ;;
            esac
            printf -v "${smop_name}" '%s' "$2"
            shift 2
            ;;
        -*) smop_option_error "there is no option $1 (options begin with --)" ;;
        *) break ;;
    esac
done
unset smop_name
