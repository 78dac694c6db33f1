#!/usr/bin/env bash
# Stage 1: write Kaldi data directories of human prompts and of sentences by synthetic voices.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

synthetic=6000
quotations=12000
lists=1000
joined=1500
voices="espeak flite hts"
audio_dir=downloads/speech
data_dir=data
sounds=/usr/share/asterisk/sounds/en_US_f_Allison
texts=/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz

help_message="Usage: $0 [--option VALUE]…
  --synthetic N    training sentences from docstrings, by synthetic voices
                   (default ${synthetic})
  --quotations N   the same from Debian's package fortunes (default ${quotations})
  --lists N        the same from lists of numbers, letters, days… (default ${lists})
  --joined N       training utterances of two or three joined human prompts (default ${joined})
  --voices LIST    kinds of synthetic voices for training (default \"${voices}\")
  --audio_dir DIR  where the sound files go (default ${audio_dir})
  --data_dir DIR   where the data directories go (default ${data_dir})
  --sounds DIR     human prompts, G.722 (default ${sounds})
  --texts FILE     their transcripts (default ${texts})"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"
# shellcheck source=path.sh
. ./path.sh

# shellcheck disable=SC2086 # a list
"${SMOP_PYTHON}" local/make_speech.py --out "${data_dir}" --audio_dir "${audio_dir}" \
    --sounds "${sounds}" --texts "${texts}" --synthetic "${synthetic}" \
    --quotations "${quotations}" --lists "${lists}" --joined "${joined}" \
    --voices ${voices} --nj "${SMOP_CORES}"
