#!/usr/bin/env bash
# The paper's experiments: trains, decodes and scores what is not done yet, then prints the tables
# with our results beside the paper's.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tables=()
dry_run=false
collect=false
machine=1x80gb
only=""
throughput=""
steps_per_epoch=""
paper=conf/paper.yaml
dumpdir=dump
expdir=exp
noise=""

help_message="Usage: local/run_paper.sh [--table 1|2] [--figure 3|4|5] [--option VALUE]…

  --table N         Table 1 (AVSR, eight systems, three LLMs) or 2 (babble noise).
  --figure N        Figure 3 (ASR and VSR), 4 (number of experts) or 5 (experts chosen). Tables and
                    figures may be given together; systems that they share are trained once.
  --released        The settings of the published checkpoint.
  --dry_run         Print what would be done, and check every config by building its model with
                    the base models' real sizes but without their weights: needs neither network
                    nor GPU nor data. Without --table and --figure it checks everything.
  --collect         Only print the tables, with the results so far.
  --machine NAME    Batch settings, a file of conf/machine/: 1x24gb, 1x80gb, 8x80gb. A step has the
                    same size with each (default ${machine}).
  --only TEXT       Only experiments whose names contain this, such as llama3.2_1b.
  --throughput \"H\"  For --dry_run: print hours of training at this measured throughput, in hours
                    of speech per hour; also by setting, \"llama3.2_1b=H llama3.2_3b=H\".
  --steps_per_epoch N  Optimizer steps of an epoch, for a training set of another size than 433
                    hours: 340 for the 30 hours. The schedule is scaled with it (default 4,900).
  --noise FILE      Noise at 16 kHz for table 2; the paper's is NOISEX's babble (default: babble of
                    training speakers, made by stage 7).
  --paper FILE      Experiments, tables and the paper's numbers (default ${paper}).
  --dumpdir DIR     As for run.sh (default ${dumpdir}).
  --expdir DIR      As for run.sh (default ${expdir}); experiments are DIR/avsr_NAME.

All other options go to run.sh. What is trained or scored is kept, so an interrupted call resumes; an
experiment that fails does not stop the others."

fail() {
    echo "run_paper.sh: $*" >&2
    echo "Try 'local/run_paper.sh --help'." >&2
    exit 2
}

run_args=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            echo "${help_message}"
            exit
            ;;
        --dry_run | --collect | --released)
            case "$1" in
                --released) tables+=(released) ;;
                *) printf -v "${1#--}" true ;;
            esac
            shift
            case "${1:-}" in true | false) fail "--dry_run, --collect and --released take no value" ;; esac
            ;;
        --table | --figure | --machine | --only | --throughput | --steps_per_epoch | --noise | --paper | --dumpdir | --expdir)
            [ $# -ge 2 ] || fail "option $1 needs a value"
            case "$1 $2" in
                "--table "[12]) tables+=("table$2") ;;
                "--figure 3") tables+=(figure3_asr figure3_vsr) ;;
                "--figure "[45]) tables+=("figure$2") ;;
                "--table "* | "--figure "*) fail "$1 $2: there are tables 1 and 2, figures 3, 4 and 5" ;;
                *) printf -v "${1#--}" '%s' "$2" ;;
            esac
            shift 2
            ;;
        *)
            run_args+=("$1")
            shift
            ;;
    esac
done
[[ ${steps_per_epoch} =~ ^([1-9][0-9]*)?$ ]] || fail "--steps_per_epoch must be a number above 0, not '${steps_per_epoch}'"
if [ ${#tables[@]} -eq 0 ] && ! "${dry_run}"; then fail "give --table or --figure, or --dry_run"; fi

# shellcheck source=path.sh
. ./path.sh

noise_name=babble
if [ -n "${noise}" ]; then
    run_args+=(--noise "${noise}")
    # As the driver names it in decode directories.
    noise_name="$(basename "${noise}")"
    noise_name="${noise_name%.*}"
    noise_name="${noise_name//_/-}"
fi
read -r -a throughputs <<< "${throughput}"
options=(--expdir "${expdir}" --machine "${machine}" --only "${only}" --noise "${noise_name}")
[ -z "${steps_per_epoch}" ] || options+=(--steps_per_epoch "${steps_per_epoch}")
command=("${SMOP_PYTHON}" -W ignore -m espnet_smop.bin.paper)

if "${dry_run}"; then
    if [ ${#throughputs[@]} -gt 0 ]; then options+=(--throughput "${throughputs[@]}"); fi
    exec "${command[@]}" dry_run "${paper}" "${tables[@]}" "${options[@]}"
fi

failed=()
if ! "${collect}"; then
    plan="$("${command[@]}" plan "${paper}" "${tables[@]}" "${options[@]}")"
    # Machines are named by their GPUs: 8x80gb has 8.
    if [[ ${machine} =~ ^([0-9]+)x ]]; then run_args=(--ngpu "${BASH_REMATCH[1]}" "${run_args[@]}"); fi
    run_args=(--dumpdir "${dumpdir}" --expdir "${expdir}" "${run_args[@]}")
    for dset in train valid test; do
        if [ ! -s "${dumpdir}/raw/${dset}/text" ]; then
            ./run.sh --stop_stage 5 "${run_args[@]}"
            break
        fi
    done
    while IFS=$'\t' read -r -u 3 name config state snrs; do
        skip_train=false
        if [ "${state}" = trained ]; then skip_train=true; fi
        if "${skip_train}" && [ -z "${snrs}" ]; then
            echo "${name} is trained and scored"
            continue
        fi
        echo "${name}: ${state}, left to decode: ${snrs:-nothing}"
        skip_eval=false
        if [ -z "${snrs}" ]; then skip_eval=true; fi
        ./run.sh --stage 6 --stop_stage 13 --avsr_config "${config}" --inference_tag decode \
            --skip_train "${skip_train}" --skip_eval "${skip_eval}" --snrs "${snrs:-clean}" \
            "${run_args[@]}" --avsr_exp "${expdir}/avsr_${name}" \
            || failed+=("${name}")
    done 3<<< "${plan}"
fi

"${command[@]}" table "${paper}" "${tables[@]}" "${options[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    echo "run_paper.sh: failed: ${failed[*]}. See their train.log in ${expdir}; the same command resumes" >&2
    exit 1
fi
