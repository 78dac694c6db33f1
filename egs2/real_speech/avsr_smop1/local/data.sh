#!/usr/bin/env bash
# Stage 1: write a human's prompts and sentences by synthetic voices as Kaldi data directories.
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
  --synthetic N    sentences of docstrings, by synthetic voices, in the training set
                   (default ${synthetic})
  --quotations N   the same of Debian's package fortunes (default ${quotations})
  --lists N        the same of numbers, letters, days… (default ${lists})
  --joined N       twos and threes of human prompts in the training set (default ${joined})
  --voices LIST    kinds of synthetic voices in the training set (default \"${voices}\")
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
