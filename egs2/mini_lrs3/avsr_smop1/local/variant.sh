# shellcheck shell=bash
# Where a size and a seed of the mini corpus live; sourced after take_options.sh with `size` and
# `seed` set. Sizes and seeds do not mix: all but the default ones get directories of their own.
[[ ${seed:?} =~ ^[0-9]+$ ]] || smop_option_error "--seed is a number, not '${seed}'"
[[ ${size:?} =~ ^(default|smoke|[0-9]+)$ ]] \
    || smop_option_error "--size is default, smoke or a number of utterances, not '${size}'"
variant="/${size:?}_seed${seed}"
case "${size} ${seed}" in
    "default 0") variant="" ;;
    "default "*) variant="/seed${seed}" ;;
    *" 0") variant="/${size}" ;;
esac
# shellcheck disable=SC2034 # for the script that sources this
datadir="${datadir:-data${variant}}" dumpdir="${dumpdir:-dump${variant}}" expdir="${expdir:-exp${variant}}"
