#!/usr/bin/env bash
# Stage 1: LRS2 on disk → data/{train,valid,test} as Kaldi data directories.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

lrs2=""
extra_train=""
data_dir=data
train_parts="pretrain train"
max_seconds=16
valid_list=""
landmarks_dir=""
allow_broken=false

help_message="Usage: $0 [--option VALUE]…
  --lrs2 DIR            the directory that holds mvlrs_v1/ and the lists pretrain.txt, train.txt,
                        val.txt and test.txt (default: LRS2= in db.sh)
  --extra_train DIRS    further training corpora, separated by colons: LRS3, or others in one of
                        the layouts that its recipe reads
  --data_dir DIR        where the data directories go (default ${data_dir})
  --train_parts LIST    pretrain, train or both (default \"${train_parts}\", 223 h; train alone is
                        28 h)
  --max_seconds S       longer pretrain clips are cut at word times (default ${max_seconds})
  --valid_list FILE     clips for validation instead of those of val.txt, one per line
  --landmarks_dir DIR   landmark files in the layout of mvlrs_v1/ (default: beside the clips)
  --allow_broken B      let the test set lose clips without text or file (default ${allow_broken})"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

if [ -z "${lrs2}" ]; then
    # shellcheck source=db.sh
    . ./db.sh
    lrs2="${LRS2:-}"
fi
if [ -z "${lrs2}" ]; then
    echo "$0: no corpus directory: write it as LRS2= in db.sh, or give --lrs2 DIR" >&2
    exit 1
fi

options=(--max_seconds "${max_seconds}" --allow_broken "${allow_broken}")
IFS=: read -r -a extra <<< "${extra_train}"
[ ${#extra[@]} -eq 0 ] || options+=(--extra_train "${extra[@]}")
[ -z "${valid_list}" ] || options+=(--valid_list "${valid_list}")
[ -z "${landmarks_dir}" ] || options+=(--landmarks_dir "${landmarks_dir}")
read -r -a parts <<< "${train_parts}"

"${SMOP_PYTHON}" -m espnet_smop.bin.prepare_corpus lrs2 \
    --root "${lrs2}" --out_dir "${data_dir}" --train_parts "${parts[@]}" "${options[@]}"
