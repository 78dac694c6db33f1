#!/usr/bin/env bash
# A sparse mixture of projectors with real base models and real speech, compared with a dense
# projector of the same active FLOPs: Whisper Base and SmolLM2-135M, both from Python packages.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

systems="llama_avsr smop4"
seeds="0"
synthetic=6000
ngpu=auto
avsr_args=""
expdir=exp
driver_args=(
    --train_set train --valid_set valid --test_sets "test_human test_synthetic" --skip_stages "7 16"
    --max_wav_duration 16 --nj "$(env -u OMP_NUM_THREADS nproc)" --inference_nj 1
)

help_message="Usage: ./run.sh [--option VALUE]…

  --systems LIST    conf/train_asr_NAME.yaml to train and decode (default \"${systems}\").
  --seeds LIST      Seeds of training; each has its own experiments (default \"${seeds}\").
  --avsr_args ARGS  More arguments for training, e.g. \"--max_epoch 1 --num_iters_per_epoch 20\".
  --ngpu N          GPUs for training; unless it is 0, decoding uses one, too (default: 1 if
                    nvidia-smi finds one, else 0).
  --synthetic N     Training sentences by synthetic voices (default ${synthetic}).
  --expdir DIR      Experiments (default ${expdir}).

All other options go to the driver, avsr_smop.sh, and override what is set here:
"
help_of=./avsr_smop.sh
own_options="systems seeds synthetic ngpu avsr_args expdir"
# shellcheck source=scripts/utils/take_options.sh
. scripts/utils/take_options.sh
for system in ${systems}; do
    [ -s "conf/train_asr_${system}.yaml" ] \
        || smop_option_error "--systems: there is no conf/train_asr_${system}.yaml"
done
for seed in ${seeds}; do
    [[ ${seed} =~ ^[0-9]+$ ]] || smop_option_error "--seeds: '${seed}' is not a number"
done

# shellcheck source=path.sh
. ./path.sh
# shellcheck source=scripts/utils/gpu_args.sh
. scripts/utils/gpu_args.sh

shared=()
for seed in ${seeds}; do
    for system in ${systems}; do
        encoder="$("${SMOP_PYTHON}" -m espnet_smop.bin.config base_models --named true \
            "conf/train_asr_${system}.yaml" | sed -n 's/^audio_frontend //p')"
        ./avsr_smop.sh "${driver_args[@]}" "${gpu_args[@]}" \
            --feats_cache "dump/feats_${encoder##*/}" \
            --local_data_opts "--synthetic ${synthetic}" --expdir "${expdir}" \
            --avsr_config "conf/train_asr_${system}.yaml" --avsr_tag "${system}_seed${seed}" \
            --avsr_args "--seed ${seed} ${avsr_args}" "${other_args[@]}" "${shared[@]}"
        # The data are made with the first system and shared by the others.
        shared=(--skip_stages "1 3 4 5 7 16")
        export SMOP_DATA_IS_SHARED=true
    done
done
# There is nothing to show before the first training.
if [ -d "${expdir}" ]; then "${SMOP_PYTHON}" -m espnet_smop.bin.results table "${expdir}"; fi
