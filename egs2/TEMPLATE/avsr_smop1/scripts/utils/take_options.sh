# shellcheck shell=bash
# Parses a script's own options; sourced after they have got their defaults.
#
# `own_options` names them: `--name VALUE` sets the variable `name`. All other arguments are put,
# unchanged, into the array `other_args`, for the script that is called. `--help` prints
# help_message and then the help of that script, if `help_of` names one.

other_args=()
while [ $# -gt 0 ]; do
    if [ "$1" = -h ] || [ "$1" = --help ]; then
        printf '%s\n' "${help_message:?}"
        [ -z "${help_of:-}" ] || exec "${help_of}" --help
        exit 0
    elif [[ $1 =~ ^--[a-z_]+$ && " ${own_options:?} " == *" ${1#--} "* ]]; then
        [ $# -ge 2 ] || { echo "$(basename "$0"): option $1 needs a value" >&2; exit 2; }
        printf -v "${1#--}" '%s' "$2"
        shift 2
    else
        other_args+=("$1")
        shift
    fi
done
