#!/usr/bin/env bash
# From nothing to a table of word error rates, on a corpus made by the recipe.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")"

tasks="avsr"
size=default
seed=0
pretrain_bases=false
ngpu=auto
summary=true
asr_config=conf/train_asr_smop4.yaml
vsr_config=conf/train_vsr_smop4.yaml
avsr_config=conf/train_avsr_smop3_dedr.yaml
inference_config=conf/decode.yaml
datadir=""
dumpdir=""
expdir=""
cores="$(env -u OMP_NUM_THREADS nproc)"
driver_args=(
    --train_set train --valid_set valid --test_sets test
    --snrs "clean 5 0 -5" --nj "${cores}" --inference_nj "${cores}"
    --avsr_config "${avsr_config}"
)

help_message="Usage: ./run.sh [--option VALUE]…

  --tasks LIST          What to train and decode: asr (audio), vsr (lips), avsr (both); they share
                        data and base models (default \"${tasks}\").
  --size S              default for results, smoke to run every stage in two minutes (its error
                        rates mean nothing), or a number of utterances (default ${size}).
  --seed N              Seed of the corpus and the training (default ${seed}). Other sizes and seeds
                        have directories of their own, such as exp/smoke_seed1.
  --pretrain_bases B    Pretrain the base models with local/pretrain_base_models.sh, which takes
                        more than an hour, instead of copying base_models/ (default
                        ${pretrain_bases}).
  --ngpu N              GPUs for training; unless it is 0, decoding uses one, too (default: 1
                        where nvidia-smi finds one, else 0).
  --summary B           At the end, print the error rates of all experiments and what to try next
                        (default ${summary}).
  --asr_config FILE     Training config of the task asr (default ${asr_config}).
  --vsr_config FILE     Training config of the task vsr (default ${vsr_config}).
  --avsr_config FILE    Training config of the task avsr (default ${avsr_config}).
  --inference_config F  Decoding config (default ${inference_config}).
  --datadir DIR         Data directories (default data, or data/VARIANT for other sizes and seeds).
  --dumpdir DIR         Features, likewise (default dump).
  --expdir DIR          Base models and experiments, likewise (default exp).

All other options go to the driver, avsr_smop.sh, and override what is set here:
"

help_of=./avsr_smop.sh
own_options="tasks size seed pretrain_bases ngpu summary asr_config vsr_config avsr_config inference_config datadir dumpdir expdir"
# shellcheck source=scripts/utils/take_options.sh
. scripts/utils/take_options.sh
for task in ${tasks}; do
    case "${task}" in
        asr | vsr | avsr) ;;
        *) smop_option_error "--tasks must be asr, vsr or avsr, not '${task}'" ;;
    esac
done
case "${summary}" in
    true | false) ;;
    *) smop_option_error "--summary must be true or false, not '${summary}'" ;;
esac
# shellcheck source=local/variant.sh
. local/variant.sh

corpus="downloads/mini_lrs3${variant//\//_}"
smoke_args=()
base_models_opts="--pretrain ${pretrain_bases}"
train_changes=(seed="${seed}")
inference_changes=()
if [ "${size}" = smoke ]; then
    smoke_args=(--snrs "clean 0")
    base_models_opts+=" --pretrain_opts '--size pretraining_smoke --sentences 640 --lm_epochs 1"
    base_models_opts+=" --audio_epochs 1 --video_epochs 1'"
    train_changes+=(max_epoch=2 num_iters_per_epoch=3)
    inference_changes+=(max_new_tokens=8)
fi

# A config, or a copy of it changed for other directories, sizes and seeds.
config_of() { # FILE [KEY=VALUE]…
    local out
    if [ "${dumpdir} ${expdir}${variant}" = "dump exp" ]; then
        echo "$1"
        return
    fi
    out="${expdir}/conf/$(basename "$1")"
    mkdir -p "${expdir}/conf"
    # Other experiments may be writing the same copy.
    "${SMOP_PYTHON}" -m espnet_smop.bin.config show "$@" > "${out}.$$"
    mv "${out}.$$" "${out}"
    echo "${out}"
}

# Paths of base models and noise, as KEY=VALUE lines for a training config.
paths_of() { # FILE TASK
    local models part model settings
    models="$("${SMOP_PYTHON}" -m espnet_smop.bin.config base_models --named "$1")"
    while read -r part model; do
        if [[ ${model} == exp/base/* ]]; then
            echo "${part}_conf.model=${expdir}/base/${model#exp/base/}"
        fi
    done <<< "${models}"
    settings="$("${SMOP_PYTHON}" -m espnet_smop.bin.config show "$1")"
    if [ "$2" != vsr ] && grep -qx ' *file: dump/noise/babble.wav' <<< "${settings}"; then
        echo "preprocessor_conf.noise.file=${dumpdir}/noise/babble.wav"
    fi
}

# shellcheck source=scripts/utils/gpu_args.sh
. scripts/utils/gpu_args.sh

# The driver's jobs end when this process has ended.
export AVSR_SMOP_DRIVER_PIDS="${AVSR_SMOP_DRIVER_PIDS:-} $$"

# shellcheck source=path.sh
. ./path.sh
inference_config="$(config_of "${inference_config}" "${inference_changes[@]}")"
shared=()
for task in ${tasks}; do
    config_name="${task}_config"
    config="${!config_name}"
    paths="$(paths_of "${config}" "${task}")"
    mapfile -t paths <<< "${paths}"
    config="$(config_of "${config}" "${train_changes[@]}" "${paths[@]}")"
    ./avsr_smop.sh "${driver_args[@]}" \
        --datadir "${datadir}" --dumpdir "${dumpdir}" --expdir "${expdir}" \
        --feats_cache "${dumpdir}/feats" \
        --local_data_opts "--size ${size} --seed ${seed} --corpus ${corpus} --nj ${cores}" \
        --base_models_opts "${base_models_opts}" "${gpu_args[@]}" "${smoke_args[@]}" \
        --modality "${task}" --avsr_config "${config}" --inference_config "${inference_config}" \
        "${other_args[@]}" "${shared[@]}"
    # Data and base models are made with the first task and shared by the others.
    shared=(--skip_data_prep true)
    export SMOP_DATA_IS_SHARED=true
done

# There is nothing to show before the first training
if ! "${summary}" || [ ! -d "${expdir}" ]; then exit 0; fi
"${SMOP_PYTHON}" -m espnet_smop.bin.results table "${expdir}"

report=""
for page in "${expdir}"/avsr_*/analysis/report.html; do
    if [ "${page}" -nt "${report}" ]; then report="${page}"; fi
done
clips=("${corpus}"/test/*/*.mp4)
if [ -n "${report}" ] && [ -s "${clips[0]}" ]; then
    cat << EOF

Report with figures: ${PWD}/${report}

Try next, in ${PWD}:
  ./run.sh${variant:+ --size ${size} --seed ${seed}} --skip_data_prep true --avsr_config conf/train_avsr_smop4_jejr.yaml
      trains another system on the same data and base models
  ${SMOP_PYTHON} -m espnet_smop.bin.transcribe ${report%/analysis/report.html} ${clips[0]}
      recognises a video file
  (cd ../../lrs3/avsr_smop1 && local/run_paper.sh --dry_run)
      checks the paper's experiments on LRS3; ../../lrs3/avsr_smop1/README.md explains that recipe
EOF
fi
