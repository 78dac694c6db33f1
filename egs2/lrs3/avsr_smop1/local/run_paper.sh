#!/usr/bin/env bash
# A paper's experiments: trains, decodes and scores the unfinished ones, then prints the tables with
# our results beside the paper's.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tables=()
dry_run=false
collect=false
verbose=false
machine=1x80gb
only=""
throughput=""
steps_per_epoch=""
papers="llama_smop omni_avsr llama_mtsk mome"
paper=llama_smop
dumpdir=dump
expdir=exp
noise=""
unit=utterance

help_message="Usage: local/run_paper.sh [--paper NAME] [--table N] [--figure N] [--option VALUE]…

  --paper NAME      llama_smop (the default), omni_avsr, llama_mtsk, mome, or all of them one after
                    the other; or a file of your own like conf/paper.yaml.
  --table N         Of llama_smop table 1 (AVSR, eight systems, three LLMs) or 2 (babble noise); of
                    the others table 1 (tasks and rates); of omni_avsr also noise.
  --figure N        Of llama_smop figure 3 (ASR and VSR), 4 (number of experts) or 5 (experts
                    chosen). Tables and figures may be given together; shared systems are trained
                    once.
  --released B      The settings of the published checkpoint.
  --dry_run B       Check every config by building its model with the base models' real sizes but
                    without their weights, and print a row for each: needs neither network nor GPU
                    nor data. Without --table and --figure it checks everything.
  --verbose B       For --dry_run: print each model's parts as well.
  --collect B       Only print the tables, with the results so far.
  --machine NAME    Batch settings, a file of conf/machine/: 1x24gb, 1x80gb, 8x80gb; of the papers
                    with several rates, a file of conf/machine_views/: 1x24gb, 1x80gb, 2x80gb. A
                    step has the same size with each (default ${machine}).
  --only TEXT       Only experiments whose names contain this, such as llama3.2_1b.
  --throughput \"H\"  For --dry_run: print hours of training at this measured throughput, in hours
                    of speech per hour; also by setting, \"llama3.2_1b=H llama3.2_3b=H\".
  --steps_per_epoch N  Optimizer steps of an epoch, for a training set of another size than 433
                    hours: 340 for the 30 hours. The schedule is scaled with it (default 4,900).
  --noise FILE      Noise for table 2; the paper's is NOISEX's babble (default: babble of
                    training speakers, made by stage 7).
  --unit U          Unit of the tables' bootstrap intervals: utterance or speaker (default
                    ${unit}).
  --dumpdir DIR     As for run.sh (default ${dumpdir}).
  --expdir DIR      As for run.sh (default ${expdir}); experiments are DIR/avsr_NAME.

B is true or false, and may be omitted for true. Trained and scored systems are kept, so an interrupted
call resumes; an experiment that fails does not stop the others. All other options go to run.sh:
"

# shellcheck source=scripts/utils/option_error.sh
. scripts/utils/option_error.sh

given=("$@")
known="${help_message}"
run_args=()
while [ $# -gt 0 ]; do
    option="${1//-/_}"
    option="--${option#__}"
    case "${option}" in
        _h | --help)
            echo "${help_message}"
            exec ./run.sh --help
            ;;
        --dry_run | --collect | --verbose | --released)
            value=true
            case "${2:-}" in true | false) value="$2"; shift ;; esac
            case "${option} ${value}" in
                "--released true") tables+=(released) ;;
                "--released false") ;;
                *) printf -v "${option#--}" '%s' "${value}" ;;
            esac
            shift
            ;;
        --table | --figure | --machine | --only | --throughput | --steps_per_epoch | --noise | --unit | --paper | --dumpdir | --expdir)
            smop_check_value "$@"
            case "${option} $2" in
                "--table noise") tables+=(noise) ;;
                "--figure 3") tables+=(figure3_asr figure3_vsr) ;;
                "--table "* | "--figure "*) tables+=("${option#--}$2") ;;
                *) printf -v "${option#--}" '%s' "$2" ;;
            esac
            shift 2
            ;;
        *)
            if [ ${#run_args[@]} -eq 0 ]; then known+=$'\n'"$(./run.sh --help)"; fi
            smop_check_option "$1" "${known}"
            smop_check_value "$@"
            run_args+=("$1" "$2")
            if [ "${option}" = --python ]; then export ESPNET_SMOP_PYTHON="$2"; fi
            shift 2
            ;;
    esac
done
[[ ${steps_per_epoch} =~ ^([1-9][0-9]*)?$ ]] \
    || smop_option_error "--steps_per_epoch must be a number above 0, not '${steps_per_epoch}'"
if [ ${#tables[@]} -eq 0 ] && ! "${dry_run}"; then
    smop_option_error "give --table or --figure, or --dry_run"
fi
if ! "${dry_run}"; then
    if [ -n "${throughput}" ]; then smop_option_error "--throughput is for --dry_run"; fi
    if "${verbose}"; then smop_option_error "--verbose is for --dry_run"; fi
elif "${collect}"; then
    smop_option_error "give only one of --dry_run and --collect"
fi
if { "${dry_run}" || "${collect}"; } && [ ${#run_args[@]} -gt 0 ]; then
    smop_option_error "${run_args[0]} is for run.sh, which --dry_run and --collect do not call"
fi
case "${unit}" in
    utterance | speaker) ;;
    *) smop_option_error "--unit must be utterance or speaker, not '${unit}'" ;;
esac
if [ -n "${noise}" ] && [ ! -s "${noise}" ]; then smop_option_error "--noise ${noise} does not exist"; fi
if [ "${paper}" = all ]; then
    status=0
    for name in ${papers}; do
        echo "== ${name}"
        local/run_paper.sh "${given[@]}" --paper "${name}" || status=1
    done
    exit "${status}"
fi
case " ${papers} " in
    *" ${paper} "*)
        paper="conf/paper_${paper}.yaml"
        paper="${paper/paper_llama_smop/paper}"
        ;;
esac
if [ ! -s "${paper}" ]; then
    smop_option_error "--paper ${paper} does not exist; give ${papers// /, } or all"
fi
known_tables="$(sed -n '/^results:/,$ s/^  \([a-z0-9_]*\):.*/\1/p' "${paper}" | xargs)"
for table in "${tables[@]}"; do
    [[ " ${known_tables} " == *" ${table} "* ]] \
        || smop_option_error "${paper} has no ${table}, only ${known_tables}"
done
export SMOP_CALLED="${smop_called}"

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
options=(--expdir "${expdir}" --noise "${noise_name}")
table_options=("${options[@]}" --unit "${unit}")
options+=(--machine "${machine}" --only "${only}")
[ -z "${steps_per_epoch}" ] || options+=(--steps_per_epoch "${steps_per_epoch}")
command=("${SMOP_PYTHON}" -W ignore -m espnet_smop.bin.paper)

if "${dry_run}"; then
    # shellcheck source=db.sh
    . ./db.sh
    options+=(--verbose "${verbose}" --dumpdir "${dumpdir}")
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
    while IFS=$'\t' read -r -u 3 name config state snrs views; do
        if [[ " ${failed[*]} " == *" ${name} "* ]]; then continue; fi
        skip_train=false
        if [ "${state}" = trained ]; then skip_train=true; fi
        if "${skip_train}" && [ -z "${snrs}" ]; then
            echo "${name} is trained and scored"
            continue
        fi
        echo "${name}: ${state}, left to decode: ${views:+${views} }${snrs:-nothing}"
        skip_eval=false
        if [ -z "${snrs}" ]; then skip_eval=true; fi
        view_args=()
        if [ -n "${views}" ]; then view_args=(--views "${views}"); fi
        ./run.sh --stage 6 --stop_stage 13 --avsr_config "${config}" --inference_tag decode \
            --skip_train "${skip_train}" --skip_eval "${skip_eval}" --snrs "${snrs:-clean}" \
            "${view_args[@]}" "${run_args[@]}" --avsr_exp "${expdir}/avsr_${name}" \
            || failed+=("${name}")
    done 3<<< "${plan}"
fi

"${command[@]}" table "${paper}" "${tables[@]}" "${table_options[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    echo "run_paper.sh: failed: ${failed[*]}. See their train.log in ${expdir}; the same command resumes" >&2
    exit 1
fi
