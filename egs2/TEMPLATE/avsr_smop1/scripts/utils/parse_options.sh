# shellcheck shell=bash
# Sets variables from the command line; sourced after they have got their defaults.
#
# An option is what `help_message` explains: `--name VALUE` sets the variable `name`. Options with
# the default true or false take these two only. What follows the options stays in "$@"; the names
# of the given options are in `smop_given`. `--help` prints help_message and ends the script; a
# function `explain` writes it again then, with what earlier options have set as the defaults.

# shellcheck source=scripts/utils/option_error.sh
. scripts/utils/option_error.sh

smop_given=" "
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            if declare -F explain > /dev/null; then explain; fi
            printf '%s\n' "${help_message:?}"
            exit 0
            ;;
        --) shift; break ;;
        -*)
            smop_check_option "$1" "${help_message}"
            smop_name="${1#--}"
            smop_name="${smop_name//-/_}"
            smop_check_value "$@"
            case "${!smop_name}" in
                true | false)
                    case "$2" in
                        true | false) ;;
                        *) smop_option_error "$1 is true or false, not '$2'" ;;
                    esac
                    ;;
            esac
            printf -v "${smop_name}" '%s' "$2"
            smop_given+="${smop_name} "
            shift 2
            ;;
        *) break ;;
    esac
done
unset smop_name
