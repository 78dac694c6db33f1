#!/usr/bin/env bash
# Pretrain the small base models from scratch, on a corpus that shares no speakers or sentences with
# others: a Llama on text alone, a Whisper and an AV-HuBERT encoder with CTC. Its defaults made
# base_models/. Finished work is kept, and an interrupted call resumes.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

size=pretraining
sentences=40000
lm_epochs=2
audio_epochs=4
video_epochs=3
out=exp/pretraining/base

help_message="Usage: $0 [--option VALUE]…
  --size S            size of the corpus: pretraining or pretraining_smoke (default ${size})
  --sentences N       sentences of the Llama's training text (default ${sentences})
  --lm_epochs N       epochs of the Llama (default ${lm_epochs})
  --audio_epochs N    epochs of the Whisper encoder (default ${audio_epochs})
  --video_epochs N    epochs of the AV-HuBERT encoder (default ${video_epochs})
  --out DIR           gets llm, whisper and avhubert (default ${out})"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh
# shellcheck source=cmd.sh
. ./cmd.sh

# For corpus and text
seed=1000

raw="dump/${size}/raw"
./avsr_smop.sh --stop_stage 7 --skip_stages "5 6" \
    --train_set pretrain --valid_set valid --test_sets test --nj "${SMOP_CORES}" \
    --datadir "data/${size}" --dumpdir "dump/${size}" --expdir "exp/${size}" \
    --local_data_opts "--size ${size} --seed ${seed} --corpus downloads/mini_lrs3_${size} --pretrain_set pretrain --nj ${SMOP_CORES}"

# Models this small do not fill two threads: the Llama, then the audio encoder, train beside the
# video encoder, each with half of the cores.
OMP_NUM_THREADS=$(((SMOP_CORES + 1) / 2))
export OMP_NUM_THREADS
export PYTHONPATH="${PWD}/local:${PYTHONPATH}"
run() { # NAME MODULE [ARGUMENT]…
    local name="$1" module="$2"
    shift 2
    echo "base model ${out}/${name}, log ${out}/logs/${name}.log"
    # shellcheck disable=SC2154 # train_cmd comes from cmd.sh
    "${train_cmd}" --num_threads "${OMP_NUM_THREADS}" "${out}/logs/${name}.log" \
        "${SMOP_PYTHON}" -m "pretraining.${module}" "$@"
}

llm_and_audio() {
    local text="${out}/text"
    run text text --train "${text}/train" --valid "${text}/valid" --count "${sentences}" \
        --seed "${seed}" || return
    run tokenizer tokenizer --out "${text}/tokenizer" --kaldi --text "${text}/train" \
        --vocab_size 250 || return
    run llm llm --out "${out}/llm" --tokenizer "${text}/tokenizer" --kaldi \
        --text "${text}/train" --valid_text "${text}/valid" --epochs "${lm_epochs}" --copies 0.8 \
        || return
    run whisper encoder --out "${out}/whisper" --modality audio --train_dir "${raw}/pretrain" \
        --valid_dir "${raw}/valid" --noise "dump/${size}/noise/babble.wav" \
        --epochs "${audio_epochs}" --batch_size 16 --word_stride 4
}

llm_and_audio &
run avhubert encoder --out "${out}/avhubert" --modality video --train_dir "${raw}/pretrain" \
    --valid_dir "${raw}/valid" --epochs "${video_epochs}" --word_stride 2
wait $!
