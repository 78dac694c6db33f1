#!/usr/bin/env bash
# First run on a GPU machine: checks its results and measures its speed.
#
#   benchmarks/gpu.sh                                  # at most nine minutes on an H100
#   benchmarks/gpu.sh --parts "check decode"           # some parts
#   benchmarks/gpu.sh --limit 600                      # for a slower GPU: seconds per part
#   benchmarks/gpu.sh --device cpu --rehearse true     # the same with tiny models, on any machine
#
# Writes MACHINE.json and MACHINE.md into benchmarks/results; --machine and --out change them.
# Models have random weights in the published sizes: nothing is downloaded. Needs 16 GB of disk in
# TMPDIR and an environment with the packages of `pip install .`, above all torch with CUDA, espnet,
# transformers, peft, and pytest for the golden numbers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

parts="check projector encoders train_1b train_3b train_8b decode"
device=cuda
machine=
out=benchmarks/results
limit=
rehearse=false
while [ $# -gt 0 ]; do
    case "$1" in
        --parts | --device | --machine | --out | --limit | --rehearse)
            [ $# -gt 1 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        *)
            sed -n '2,12p' "$0" >&2
            exit 2 ;;
    esac
done

# Part → its time limit in seconds, and its command. The limits add up to less than nine minutes.
declare -A limits=(
    [check]=80 [projector]=40 [encoders]=70 [train_1b]=110 [train_3b]=90 [train_8b]=60 [decode]=80
)
train="benchmarks/train.py --batches 6 --rounds 2 --corpus 2000 --leave_out reference"
declare -A command=(
    [check]="benchmarks/check_device.py"
    [projector]="benchmarks/projector.py --precision bf16 --tokens 512 16384 --experts 4 16"
    [encoders]="benchmarks/frontend.py avhubert whisper --compile default reduce-overhead"
    [train_1b]="$train --compare torch.compile"
    [train_3b]="$train --whisper openai/whisper-medium.en --llm meta-llama/Llama-3.2-3B"
    [train_8b]="$train --whisper openai/whisper-medium.en --llm meta-llama/Llama-3.1-8B"
    [decode]="benchmarks/decode.py --utterances 32 --rounds 1"
)
if [ "$rehearse" = true ]; then
    command[check]+=" --no_golden --routings dedr"
    train="benchmarks/train.py --tiny --batches 1 --rounds 1 --corpus 100 --leave_out reference"
    command[projector]="benchmarks/projector.py --tokens 64 --experts 4 --width 64 --hidden 64"
    command[encoders]="benchmarks/frontend.py avhubert whisper --tiny --utterances 2 --repeats 1"
    for part in train_1b train_3b train_8b; do command[$part]=$train; done
    command[decode]="benchmarks/decode.py --tiny --utterances 2 --rounds 1 --beam_size 2"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1
mkdir "$scratch/parts"
failed=
for part in $parts; do
    [ -n "${command[$part]:-}" ] ||
        { echo "$0: there is no part '$part'; the parts are: ${!command[*]}" >&2; exit 2; }
    files=$scratch/parts/$part
    seconds=${limit:-${limits[$part]}}
    # The words of a command, none of which has a space.
    read -ra words <<<"${command[$part]} --device $device --json $files.json"
    echo "$(date +%T) $part: at most $seconds s" >&2
    begin=$SECONDS status=0
    # Scripts stop by themselves between two measurements; `timeout` stops the others.
    timeout --kill-after=10 "$seconds" python -u "${words[@]}" --seconds $((seconds * 3 / 4)) \
        >"$files.md" 2>"$files.log" || status=$?
    printf '%s\n' "status $status" "seconds $((SECONDS - begin))" \
        "command python ${command[$part]} --device $device" >"$files.run"
    if [ "$status" != 0 ]; then
        failed+=" $part"
        tail -n 5 "$files.log" >&2
    fi
done
[ -n "$machine" ] || machine=$(python -c "
import torch
name = torch.cuda.get_device_name() if '$device' == 'cuda' else 'cpu'
print(name.lower().replace(' ', '_'))")
python benchmarks/results.py collect "$scratch/parts" "$out/$machine.json" --device "$device"
echo "$out/$machine.md" >&2
[ -z "$failed" ] || { echo "not complete:$failed" >&2; exit 1; }
