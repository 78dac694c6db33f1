#!/usr/bin/env bash
# Your own corpus, from a folder of clips to RESULTS.md. Set its path in db.sh or by CORPUS=DIR.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

task=avsr
ngpu=auto
avsr_args=""
driver_args=(
    --train_set train --valid_set valid --test_sets test --inference_config conf/decode.yaml
    --nj "$(env -u OMP_NUM_THREADS nproc)"
)

help_message="Usage: ./run.sh [--option VALUE]…

  --task T          What to train: asr (audio), vsr (lips) or avsr (both), by conf/train_T.yaml
                    (default ${task}).
  --ngpu N          GPUs for training; unless it is 0, decoding uses one, too (default: 1 if
                    nvidia-smi finds one, else 0).
  --avsr_args ARGS  More arguments for training, e.g. \"--max_epoch 1\".

All other options go to the driver, avsr_smop.sh, and override what is set here:
"
help_of=./avsr_smop.sh
own_options="task ngpu avsr_args"
# shellcheck source=scripts/utils/take_options.sh
. scripts/utils/take_options.sh
case "${task}" in
    asr | vsr | avsr) ;;
    *) smop_option_error "--task must be asr, vsr or avsr, not '${task}'" ;;
esac
# shellcheck source=scripts/utils/gpu_args.sh
. scripts/utils/gpu_args.sh

./avsr_smop.sh "${driver_args[@]}" "${gpu_args[@]}" \
    --avsr_config "conf/train_${task}.yaml" --avsr_args "${avsr_args}" "${other_args[@]}"
