# shellcheck shell=bash
# Where a size and a seed of the mini corpus live; sourced with `size` and `seed` set. Sizes and seeds
# do not mix: all but the default ones get directories of their own.
if ! [[ ${seed:?} =~ ^[0-9]+$ ]]; then
    echo "${0##*/}: --seed is a number, not '${seed}'" >&2
    exit 2
fi
variant="/${size:?}_seed${seed}"
case "${size} ${seed}" in
    "default 0") variant="" ;;
    "default "*) variant="/seed${seed}" ;;
    *" 0") variant="/${size}" ;;
esac
# shellcheck disable=SC2034 # for the script that sources this
{
    datadir="data${variant}"
    dumpdir="dump${variant}"
    expdir="exp${variant}"
}
