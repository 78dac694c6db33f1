#!/usr/bin/env bash
# LRS2: from your copy of the corpus to RESULTS.md. Set its path in db.sh or by LRS2=DIR.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

ngpu=1
driver_args=(
    --train_set train --valid_set valid --test_sets test
    --avsr_config conf/train_avsr.yaml --inference_config conf/decode.yaml
    --nj "$(env -u OMP_NUM_THREADS nproc)"
)

help_message="Usage: ./run.sh [--option VALUE]…

  --ngpu N  GPUs for training; unless it is 0, decoding uses one, too (default ${ngpu}).

All other options go to the driver, avsr_smop.sh, and override what is set here:
"
help_of=./avsr_smop.sh
own_options="ngpu"
# shellcheck source=scripts/utils/take_options.sh
. scripts/utils/take_options.sh
# shellcheck source=scripts/utils/gpu_args.sh
. scripts/utils/gpu_args.sh

./avsr_smop.sh "${driver_args[@]}" "${gpu_args[@]}" "${other_args[@]}"
