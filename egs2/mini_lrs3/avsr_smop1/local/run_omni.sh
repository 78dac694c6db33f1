#!/usr/bin/env bash
# One Omni-SMoP model, decoded in each of its views, beside three models of one task that are trained
# about as long: trains, decodes and scores them, then prints error rates, comparisons and seconds.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

omni_views="asr:4 asr:8 vsr:2 vsr:4 avsr:4,2 avsr:4,4 avsr:8,2 avsr:8,4"
single_epochs=20
warm_start=300 # ctc_warmup_steps of conf/train_base.yaml

series_about="One Omni-SMoP model (conf/train_omni_smop.yaml), decoded as ASR, VSR and AVSR at each rate, beside a
model for each task, at the finest rate."
series_help="  --single_epochs N  Epochs of the models of one task (default ${single_epochs}: a step with
                  three tasks takes about twice as long, and the Omni-SMoP model has 10)."
own_options="single_epochs"
# shellcheck source=local/series.sh
. local/series.sh

if ! [[ ${single_epochs} =~ ^[0-9]+$ ]] || [ "${single_epochs}" -le 3 ]; then
    smop_option_error "--single_epochs must be a number above 3, not '${single_epochs}'"
fi
# The second cycle of the schedule ends with the training, as in conf/train_base.yaml.
mult="$(awk -v n="$((100 * single_epochs - warm_start))" 'BEGIN { printf "%.4f", (n - 30) / 270 }')"
single="--max_epoch ${single_epochs} --scheduler_conf cycle_mult=${mult}"
for one_seed in ${seeds}; do
    add_experiment train_omni_smop conf/train_omni_smop.yaml "${one_seed}" "" "${omni_views}"
    for system in asr_smop4 vsr_smop4 avsr_smop3_dedr; do
        add_experiment "train_${system}_${single_epochs}epochs" "conf/train_${system}.yaml" \
            "${one_seed}" "${single}"
    done
done
run_experiments

if [ ${#scored[@]} -gt 0 ]; then
    echo "Omni-SMoP on the mini corpus"
    "${SMOP_PYTHON}" -m espnet_smop.bin.results table "${scored[@]}"
    "${SMOP_PYTHON}" local/compare_views.py "${scored[@]}"
fi
end_series
