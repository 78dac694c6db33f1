#!/usr/bin/env bash
# The eight systems of the paper's Table 1: trains, decodes and scores them, then prints one table and
# makes one report of them all.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

size=default
seed=0
# In the paper's order; each is conf/train_avsr_NAME.yaml
all_systems="llama_avsr dci mmfuser smop4_jejr smop4_jedr smop3_dedr smop4v_dci_a smop4v_mmfuser_a"
systems="${all_systems}"
datadir=""
dumpdir=""
expdir=""

help_message="Usage: local/run_table1.sh [--option VALUE]…

  --size S        As in run.sh (default ${size}).
  --seed N        As in run.sh (default ${seed}).
  --systems LIST  Only these, of: ${systems}.
  --datadir DIR   As in run.sh; likewise --dumpdir and --expdir.

What is finished is kept: an interrupted call continues where it stopped, and a system whose RESULTS.md
is newer than its model is not decoded again. All other options go to run.sh:
"

help_of=./run.sh
own_options="size seed systems datadir dumpdir expdir"
# shellcheck source=scripts/utils/take_options.sh
. scripts/utils/take_options.sh
# shellcheck source=local/variant.sh
. local/variant.sh

experiments=()
for system in ${systems}; do
    config="conf/train_avsr_${system}.yaml"
    if ! [ -s "${config}" ]; then
        smop_option_error "--systems: there is no ${config}, only: ${all_systems}"
    fi
    experiments+=("${expdir}/avsr_train_avsr_${system}")
done

for experiment in "${experiments[@]}"; do
    if [ "${experiment}/RESULTS.md" -nt "${experiment}/valid.acc.ave.pth" ]; then
        echo "${experiment} is scored"
        continue
    fi
    shared=()
    # Stage 10 comes after data and base models, which all systems share.
    if [ -s "${expdir}/avsr_stats/valid/duration_shape" ]; then shared=(--skip_data_prep true); fi
    ./run.sh --tasks avsr --size "${size}" --seed "${seed}" \
        --datadir "${datadir}" --dumpdir "${dumpdir}" --expdir "${expdir}" \
        --avsr_config "conf/${experiment##*/avsr_}.yaml" --skip_stages 16 \
        "${shared[@]}" "${other_args[@]}" --avsr_exp "${experiment}"
done

# shellcheck source=path.sh
. ./path.sh
"${SMOP_PYTHON}" -m espnet_smop.bin.results report "${experiments[@]}" \
    --data_dir "${dumpdir}/raw/test" --out "${expdir}/analysis" --title "Table 1 on the mini corpus"
echo "Table 1 on the mini corpus"
"${SMOP_PYTHON}" -m espnet_smop.bin.results table "${experiments[@]}"
