#!/usr/bin/env bash
# Stage 6: copy the small stand-ins for the published base models from base_models/, or pretrain them
# anew. A config may name real ones instead, which come from Python packages.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

# shellcheck disable=SC2034 # the driver passes these to every recipe
{
    train_dir=""
    valid_dir=""
    tokenizer=""
    noise=""
}
out=exp/base
avsr_config=""
pretrain=false
pretrain_opts=""

help_message="Usage: $0 [--option VALUE]…
  --out DIR           gets llm, whisper and avhubert (default ${out})
  --avsr_config FILE  training config; its base models below downloads/ are made as well
  --pretrain B        pretrain them with local/pretrain_base_models.sh (default ${pretrain})
  --pretrain_opts O   options for that, e.g. \"--video_epochs 2\"
Passed by the driver and not needed here:
  --train_dir DIR
  --valid_dir DIR
  --tokenizer DIR
  --noise FILE"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

if [ -n "${avsr_config}" ]; then scripts/utils/packaged_models.sh "${avsr_config}"; fi

if "${pretrain}"; then
    read -r -a options <<< "${pretrain_opts}"
    exec local/pretrain_base_models.sh --out "${out}" "${options[@]}"
fi
mkdir -p "${out}"
for model in llm whisper avhubert; do
    if ! diff -rq "base_models/${model}" "${out}/${model}" > /dev/null 2>&1; then
        rm -rf "${out:?}/${model}" "${out}/${model}.partial"
        cp -r "base_models/${model}" "${out}/${model}.partial"
        mv "${out}/${model}.partial" "${out}/${model}"
    fi
done
echo "base models copied from base_models/ to ${out}"
