#!/usr/bin/env bash
# The eight systems of the paper's Table 1: trains, decodes and scores them, then prints one table and
# makes one report of them all.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# In the paper's order; each is conf/train_avsr_NAME.yaml
table1="llama_avsr dci mmfuser smop4_jejr smop4_jedr smop3_dedr smop4v_dci_a smop4v_mmfuser_a"
# Llama-AVSR as large as SMoP-3 DEDR
dense="llama_avsr_active llama_avsr_total"
systems="${table1}"

series_about="The paper's Table 1: eight systems, compared with the first one. With several seeds: mean, standard
deviation, and a comparison over seeds and utterances."
series_help="  --systems LIST  Only these, of: ${table1}
                  ${dense} (a dense projector with as many active, or as
                  many total parameters as smop3_dedr). all: these ten (default: the first eight)."
own_options="systems"
# shellcheck source=local/series.sh
. local/series.sh

if [ "${systems}" = all ]; then systems="${table1} ${dense}"; fi
read -r -a systems <<< "${systems}"
for system in "${systems[@]}"; do
    if ! [ -s "conf/train_avsr_${system}.yaml" ]; then
        smop_option_error "--systems: there is no conf/train_avsr_${system}.yaml, only: ${table1} ${dense}"
    fi
done
# Seed by seed: after each, all systems can be compared.
for one_seed in ${seeds}; do
    for system in "${systems[@]}"; do
        add_experiment "train_avsr_${system}" "conf/train_avsr_${system}.yaml" "${one_seed}"
    done
done
run_experiments

if [ ${#scored[@]} -gt 0 ]; then
    # The report has figures of each training: those of one seed are enough.
    shown=()
    for experiment in "${experiments[@]:0:${#systems[@]}}"; do
        if is_scored "${experiment}"; then shown+=("${experiment}"); fi
    done
    if [ ${#shown[@]} -gt 0 ]; then
        "${SMOP_PYTHON}" -m espnet_smop.bin.results report "${shown[@]}" \
            --data_dir "${dumpdir}/raw/test" --out "${expdir}/analysis" --title "Table 1 on the mini corpus"
    fi
    over_seeds=false
    if [[ ${seeds} == *\ * ]]; then over_seeds=true; fi
    echo "Table 1 on the mini corpus"
    "${SMOP_PYTHON}" -m espnet_smop.bin.results table --over_seeds "${over_seeds}" "${scored[@]}"
fi
end_series
