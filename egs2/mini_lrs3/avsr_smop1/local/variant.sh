# shellcheck shell=bash
# Directories for a size and a seed of the mini corpus; sourced after take_options.sh with `size` and
# `seed` set. Sizes and seeds do not mix: all but the defaults get their own directories.
[[ ${seed:?} =~ ^[0-9]+$ ]] || smop_option_error "--seed must be a number, not '${seed}'"
[[ ${size:?} =~ ^(default|smoke|[0-9]+)$ ]] \
    || smop_option_error "--size must be default, smoke or a number of utterances, not '${size}'"
variant="/${size:?}_seed${seed}"
case "${size} ${seed}" in
    "default 0") variant="" ;;
    "default "*) variant="/seed${seed}" ;;
    *" 0") variant="/${size}" ;;
esac
# shellcheck disable=SC2034 # for the script that sources this
datadir="${datadir:-data${variant}}" dumpdir="${dumpdir:-dump${variant}}" expdir="${expdir:-exp${variant}}"
