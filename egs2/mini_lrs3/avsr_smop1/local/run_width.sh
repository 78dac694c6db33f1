#!/usr/bin/env bash
# Error rate over hidden width: mixtures against dense projectors with as many active parameters.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

widths="8 32 128 384"
mixture=conf/train_avsr_smop4_dedr.yaml
dense=conf/train_avsr_llama_avsr.yaml

series_about="Trains SMoP-4 DEDR with several hidden widths of its experts, and for each a dense projector with as
many active parameters. Draws error rates over the width, EXPDIR/width/width.svg, and compares the two."
series_help="  --widths LIST   Hidden widths of the experts (default \"${widths}\")."
own_options="widths"
# shellcheck source=local/series.sh
. local/series.sh

for width in ${widths}; do
    [[ ${width} =~ ^[1-9][0-9]*$ ]] || smop_option_error "--widths must be numbers above 0, not '${width}'"
done
# shellcheck disable=SC2086 # a list
dense_widths="$("${SMOP_PYTHON}" local/dense_width.py --mixture "${mixture}" --dense "${dense}" \
    --widths ${widths})"
for one_seed in ${seeds}; do
    while read -r width dense_width; do
        add_experiment "dense_same_active_w${width}" "${dense}" "${one_seed}" \
            "--projector_conf hidden_size=${dense_width}"
        add_experiment "smop4_dedr_w${width}" "${mixture}" "${one_seed}" \
            "--projector_conf hidden_size=${width}"
    done <<< "${dense_widths}"
done
run_experiments

if [ ${#scored[@]} -gt 0 ]; then
    for width in ${widths}; do
        pair=()
        for experiment in "${scored[@]}"; do
            if [[ ${experiment} =~ _w${width}(_seed[0-9]+)?$ ]]; then pair+=("${experiment}"); fi
        done
        [ ${#pair[@]} -eq 0 ] || "${SMOP_PYTHON}" -m espnet_smop.bin.results table --over_seeds true "${pair[@]}"
    done
    "${SMOP_PYTHON}" -m espnet_smop.bin.results widths "${scored[@]}" --output_dir "${expdir}/width"
fi
end_series
