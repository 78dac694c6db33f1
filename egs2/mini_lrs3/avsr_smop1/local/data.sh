#!/usr/bin/env bash
# Stage 1: make the corpus in LRS3's format, then prepare it like LRS3.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

size=default
seed=0
corpus=downloads/mini_lrs3
data_dir=data
pretrain_set=""
nj=2

help_message="Usage: $0 [--option VALUE]…
  --size S             as in make_corpus.py (default ${size})
  --seed N             seed of sentences, speakers and noise (default ${seed})
  --corpus DIR         where the corpus is made; existing files are kept (default ${corpus})
  --data_dir D         where the data directories go (default ${data_dir})
  --pretrain_set NAME  a data directory for the base models' pretraining clips, for a size that
                       has some
  --nj N               parallel processes (default ${nj})"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

"${SMOP_PYTHON}" local/make_corpus.py --out "${corpus}" --size "${size}" --seed "${seed}" --nj "${nj}"

options=(--train_parts trainval)
[ -z "${pretrain_set}" ] || options=(--pretrain_set "${pretrain_set}")
../../lrs3/avsr_smop1/local/data.sh --lrs3 "${corpus}" --data_dir "${data_dir}" \
    --valid_list "${corpus}/valid.id" "${options[@]}"
