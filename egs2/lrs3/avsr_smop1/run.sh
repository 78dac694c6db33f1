#!/usr/bin/env bash
# LRS3-TED: from your copy of the corpus to RESULTS.md. Say where it is in db.sh or by LRS3=DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./avsr_smop.sh \
    --train_set train --valid_set valid --test_sets test \
    --avsr_config conf/train_avsr.yaml --inference_config conf/decode.yaml \
    --gpu_inference true --inference_nj 1 --nj "$(env -u OMP_NUM_THREADS nproc)" \
    "$@"
