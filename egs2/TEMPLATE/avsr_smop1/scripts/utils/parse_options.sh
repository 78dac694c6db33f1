# shellcheck shell=bash
# Sets variables from the command line; sourced after their defaults are set.
#
# An option is what `help_message` explains: `--name VALUE` sets the variable `name`. Options with
# the default true or false take only these two. What follows the options stays in "$@"; the names
# of the given options are in `smop_given`. `--help` prints help_message and ends the script; if there
# is a function `explain`, it first rewrites the message, with earlier options as the defaults.

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
                        *) smop_option_error "$1 must be true or false, not '$2'" ;;
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
