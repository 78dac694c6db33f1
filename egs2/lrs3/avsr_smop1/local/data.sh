#!/usr/bin/env bash
# Stage 1: LRS3 on disk → data/{train,valid,test} as Kaldi data directories.
set -euo pipefail

help_message=$(cat <<'EOF'
Usage: local/data.sh [options]
  --lrs3 DIR            LRS3's directory, raw or as prepared by auto_avsr or AV-HuBERT
                        (default: LRS3= in db.sh)
  --extra_train DIR     a further training corpus in one of these forms
  --data_dir DIR        where the data directories go (default: data)
  --train_parts "P…"    pretrain, trainval or both (default: "pretrain trainval", 433 h)
  --train_set NAME      (default: train)
  --valid_set NAME      (default: valid)
  --test_set NAME       (default: test)
  --max_seconds S       longer clips are cut at word times (default: 16)
  --valid_share F       share of training clips for validation, by speaker (default: 0.04)
  --valid_list FILE     clips or speakers for validation instead, one a line
  --landmarks_dir DIR   landmark files in LRS3's layout (default: beside the clips)
  --allow_broken BOOL   let the test set lose clips without text or file (default: false)
EOF
)

lrs3=
extra_train=
data_dir=data
train_parts="pretrain trainval"
train_set=train
valid_set=valid
test_set="test"
max_seconds=16
valid_share=0.04
valid_list=
landmarks_dir=
allow_broken=false

while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) echo "${help_message}"; exit 0 ;;
    --lrs3 | --extra_train | --data_dir | --train_parts | --train_set | --valid_set | --test_set \
      | --max_seconds | --valid_share | --valid_list | --landmarks_dir | --allow_broken)
      [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 1; }
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    *) echo "$0: unknown option $1 (see --help)" >&2; exit 1 ;;
  esac
done

if [ -z "${lrs3}" ] && [ -f ./db.sh ]; then
  # shellcheck disable=SC1091
  . ./db.sh
  lrs3=${LRS3:-}
fi

options=(--max_seconds "${max_seconds}" --valid_share "${valid_share}")
[ -z "${extra_train}" ] || options+=(--extra_train "${extra_train}")
[ -z "${valid_list}" ] || options+=(--valid_list "${valid_list}")
[ -z "${landmarks_dir}" ] || options+=(--landmarks_dir "${landmarks_dir}")
[ "${allow_broken}" = false ] || options+=(--allow_broken)
read -r -a parts <<< "${train_parts}"

python3 -m espnet_smop.bin.prepare_lrs3 \
  --lrs3 "${lrs3}" --out_dir "${data_dir}" --train_parts "${parts[@]}" \
  --train_set "${train_set}" --valid_set "${valid_set}" --test_set "${test_set}" "${options[@]}"
python3 -m espnet_smop.bin.fix_data_dir --check \
  "${data_dir}/${train_set}" "${data_dir}/${valid_set}" "${data_dir}/${test_set}"
