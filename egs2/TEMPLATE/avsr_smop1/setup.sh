#!/usr/bin/env bash
# Creates a recipe for your own corpus, like egs2/own_corpus.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

template="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
example="$(dirname "$(dirname "${template}")")/own_corpus/avsr_smop1"

usage="Usage: $0 egs2/NAME/avsr_smop1"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "${usage}"
    exit 0
elif [[ ${1:-} == -* ]]; then
    echo "setup.sh: there is no option $1. ${usage}" >&2
    exit 2
elif [ $# -ne 1 ]; then
    echo "setup.sh: give one new directory. ${usage}" >&2
    exit 2
fi
target="$1"
if [ -e "${target}" ] || [ -L "${target}" ]; then
    echo "setup.sh: ${target} exists; give a new directory or remove it" >&2
    exit 1
fi
# Elsewhere the links would break and path.sh would not find the package.
parent="$(realpath -m "$(dirname "$(dirname "${target}")")")"
if [ "${parent}" != "$(dirname "$(dirname "${template}")")" ]; then
    echo "setup.sh: ${target} is not in this clone's egs2. ${usage}" >&2
    exit 1
fi

mkdir -p "${target}/conf" "${target}/local"
for name in avsr_smop.sh cmd.sh path.sh scripts conf/slurm.conf; do
    ln -s "$(realpath --relative-to "$(dirname "${target}/${name}")" "${template}/${name}")" \
        "${target}/${name}"
done
cp "${example}"/{run.sh,db.sh,README.md} "${target}"
cp "${example}"/conf/*.yaml "${target}/conf"
cp -L "${example}"/local/{data.sh,base_models.sh} "${target}/local"
echo "${target}: set the path of your corpus in db.sh and start ./run.sh; see README.md"
