#!/usr/bin/env bash
# Stage 5: train the tokenizer of the Llama that stage 6 pretrains.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

text=dump/raw/train/text
vocab_size=250
out=data/token_list/bpe_unigram250

help_message="Usage: $0 [--option VALUE]…
  --text FILE       Kaldi text, \"ID sentence\" on each line (default ${text})
  --vocab_size N    size of the vocabulary, special tokens included (default ${vocab_size})
  --out DIR         directory of the Hugging Face tokenizer (default ${out})"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

PYTHONPATH="${PWD}/local:${PYTHONPATH}" "${SMOP_PYTHON}" -m pretraining.tokenizer \
    --kaldi --text "${text}" --vocab_size "${vocab_size}" --out "${out}"
