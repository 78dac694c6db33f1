# shellcheck shell=bash
# Parses a script's own options; sourced after their defaults are set.
#
# `own_options` names them: `--name VALUE` sets the variable `name`. All others go into the array
# `other_args`, for the script `help_of`, whose help must explain them. `--help` prints help_message
# and then the help of that script, with the defaults that `driver_args` sets.

# shellcheck source=scripts/utils/option_error.sh
. scripts/utils/option_error.sh

other_args=()
[ -n "${driver_args+set}" ] || driver_args=()
smop_known=""
while [ $# -gt 0 ]; do
    if [ "$1" = -h ] || [ "$1" = --help ]; then
        printf '%s\n' "${help_message:?}"
        exec "${help_of:?}" "${driver_args[@]}" --help
    fi
    smop_name="${1#--}"
    smop_name="${smop_name//-/_}"
    if [[ $1 == --* && " ${own_options:?} " == *" ${smop_name} "* ]]; then
        smop_check_value "$@"
        printf -v "${smop_name}" '%s' "$2"
    else
        if [ -z "${smop_known}" ]; then smop_known="${help_message}"$'\n'"$("${help_of:?}" --help)"; fi
        smop_check_option "$1" "${smop_known}"
        smop_check_value "$@"
        other_args+=("$1" "$2")
        # Also for what runs before that script.
        if [ "${smop_name}" = python ]; then export ESPNET_SMOP_PYTHON="$2"; fi
    fi
    shift 2
done
unset smop_name smop_known
export SMOP_CALLED="${smop_called}"
