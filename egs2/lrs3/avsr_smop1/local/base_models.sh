#!/usr/bin/env bash
# Stage 6: provide the config's published base models: fetch those of the hub and convert
# AV-HuBERT's checkpoint.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

# shellcheck disable=SC2034 # the driver passes these to every recipe
{
    train_dir=""
    valid_dir=""
    tokenizer=""
    noise=""
    out=""
}
avsr_config=conf/train_avsr.yaml
avhubert_checkpoint=""
avhubert=downloads/avhubert_large_lrs3_vox

help_message="Usage: $0 [--option VALUE]…
  --avsr_config FILE          config that names the base models (default ${avsr_config})
  --avhubert_checkpoint FILE  AV-HuBERT as published, e.g. large_vox_iter5.pt; converted unless done
  --avhubert DIR              where the converted model goes, video_frontend_conf's model
                              (default ${avhubert})
Passed by the driver and not needed here:
  --train_dir DIR
  --valid_dir DIR
  --tokenizer DIR
  --noise FILE
  --out DIR"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

# Without AV-HuBERT's directory the last command would look for it on the hub.
named="$("${SMOP_PYTHON}" -m espnet_smop.bin.config base_models --named "${avsr_config}")"
if grep -qxF "video_frontend ${avhubert}" <<< "${named}" && [ ! -d "${avhubert}" ]; then
    if [ -z "${avhubert_checkpoint}" ]; then
        echo "$0: ${avhubert} does not exist. Download AV-HuBERT Large (LRS3 + VoxCeleb2, without" \
            "fine-tuning: large_vox_iter5.pt) from its authors' site, whose licence you accept," \
            "and add --base_models_opts '--avhubert_checkpoint FILE'" >&2
        exit 1
    fi
    "${SMOP_PYTHON}" -m espnet_smop.bin.convert_base_model avhubert \
        --checkpoint "${avhubert_checkpoint}" --out "${avhubert}"
fi
"${SMOP_PYTHON}" -m espnet_smop.bin.config base_models "${avsr_config}"
