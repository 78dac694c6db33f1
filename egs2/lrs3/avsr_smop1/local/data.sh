#!/usr/bin/env bash
# Stage 1: LRS3 on disk → data/{train,valid,test} as Kaldi data directories.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

lrs3=""
extra_train=""
data_dir=data
train_parts="pretrain trainval"
train_set=train
pretrain_set=""
valid_set=valid
test_set="test"
max_seconds=16
valid_share=0.04
valid_list=""
landmarks_dir=""
allow_broken=false

help_message="Usage: $0 [--option VALUE]…
  --lrs3 DIR            LRS3's directory, raw or as prepared by auto_avsr or AV-HuBERT
                        (default: LRS3= in db.sh)
  --extra_train DIRS    further training corpora, each in one of these forms, separated by colons
  --data_dir DIR        where the data directories go (default ${data_dir})
  --train_parts LIST    pretrain, trainval or both (default \"${train_parts}\", 433 h; trainval
                        alone is 30 h)
  --train_set NAME      (default ${train_set})
  --pretrain_set NAME   a separate set for the training utterances of the part pretrain
                        (default: they are in the training set)
  --valid_set NAME      (default ${valid_set})
  --test_set NAME       (default ${test_set})
  --max_seconds S       longer clips are cut at word times (default ${max_seconds})
  --valid_share F       share of training clips for validation, by speaker (default ${valid_share})
  --valid_list FILE     clips or speakers for validation instead, one per line
  --landmarks_dir DIR   landmark files in LRS3's layout (default: beside the clips)
  --allow_broken B      let the test set lose clips without text or file (default ${allow_broken})"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

if [ -z "${lrs3}" ]; then
    # shellcheck source=db.sh
    . ./db.sh
    lrs3="${LRS3:-}"
fi

if [ -z "${lrs3}" ]; then
    echo "$0: no corpus directory: write it as LRS3= in db.sh, or give --lrs3 DIR" >&2
    exit 1
fi

options=(--max_seconds "${max_seconds}" --valid_share "${valid_share}")
IFS=: read -r -a extra <<< "${extra_train}"
[ ${#extra[@]} -eq 0 ] || options+=(--extra_train "${extra[@]}")
[ -z "${pretrain_set}" ] || options+=(--pretrain_set "${pretrain_set}")
[ -z "${valid_list}" ] || options+=(--valid_list "${valid_list}")
[ -z "${landmarks_dir}" ] || options+=(--landmarks_dir "${landmarks_dir}")
[ "${allow_broken}" = false ] || options+=(--allow_broken)
read -r -a parts <<< "${train_parts}"

"${SMOP_PYTHON}" -m espnet_smop.bin.prepare_corpus any_lrs3 \
    --root "${lrs3}" --out_dir "${data_dir}" --train_parts "${parts[@]}" \
    --train_set "${train_set}" --valid_set "${valid_set}" --test_set "${test_set}" "${options[@]}"
