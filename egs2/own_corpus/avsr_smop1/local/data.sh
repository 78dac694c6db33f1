#!/usr/bin/env bash
# Stage 1: a folder of clips → data/{train,valid,test} as Kaldi data directories.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

corpus=""
data_dir=data
reader=folder
modalities=""
speakers=""
valid_share=0.1
valid_list=""
test_share=0.1
test_list=""
normalise_text=false
mouth_crops=false
allow_broken=false

help_message="Usage: $0 [--option VALUE]…
  --corpus DIR        the folder of clips (default: CORPUS= in db.sh)
  --data_dir DIR      where the data directories go (default ${data_dir})
  --modalities LIST   audio, video or both (default: what the first clip has)
  --speakers FILE     table of 'CLIP SPEAKER' lines (default: the first folder is the speaker)
  --valid_share F     share of the clips for validation, by speaker (default ${valid_share})
  --valid_list FILE   clips or speakers for validation instead, one per line
  --test_share F      share of the clips for the test, by speaker (default ${test_share})
  --test_list FILE    clips or speakers for the test instead, one per line
  --normalise_text B  lower-case, drop {…} and <…>, as for LRS3 (default ${normalise_text})
  --mouth_crops B     videos are 96×96 mouth crops already (default ${mouth_crops})
  --allow_broken B    let the test set lose clips without text or file (default ${allow_broken})
  --reader NAME       another reader, such as local.my_corpus:MyReader (default ${reader}); it
                      must take the options from --modalities to --mouth_crops"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

if [ -z "${corpus}" ]; then
    # shellcheck source=db.sh
    . ./db.sh
    corpus="${CORPUS:-}"
fi
if [ -z "${corpus}" ]; then
    echo "$0: no corpus directory: write it as CORPUS= in db.sh, or give --corpus DIR" >&2
    exit 1
fi

options=(--valid_share "${valid_share}" --test_share "${test_share}")
read -r -a wanted <<< "${modalities}"
[ ${#wanted[@]} -eq 0 ] || options+=(--modalities "${wanted[@]}")
[ -z "${speakers}" ] || options+=(--speakers "${speakers}")
[ -z "${valid_list}" ] || options+=(--valid_list "${valid_list}")
[ -z "${test_list}" ] || options+=(--test_list "${test_list}")
for name in normalise_text mouth_crops allow_broken; do
    [ "${!name}" = false ] || options+=("--${name}")
done

"${SMOP_PYTHON}" -m espnet_smop.bin.prepare_corpus "${reader}" --root "${corpus}" \
    --out_dir "${data_dir}" "${options[@]}"
