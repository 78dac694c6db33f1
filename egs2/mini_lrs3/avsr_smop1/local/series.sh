# shellcheck shell=bash
# A series of experiments on one corpus, side by side, for scripts that source this with
# `series_about` and `series_help` set, and with the names of their own options in `own_options`.
# Parses the options; then add_experiment lists experiments and run_experiments runs them.

size=default
seed=0
seeds=""
jobs=0
ngpu=auto
avsr_args=""
datadir=""
dumpdir=""
expdir=""

help_message="Usage: local/${0##*/} [--option VALUE]…

${series_about:?}

${series_help:?}
  --seeds LIST    Seeds of the training, with the same corpus and base models (default: that
                  of --seed). Experiments with another seed than --seed's end in _seedN.
  --jobs N        Experiments at the same time, each with its share of the cores (default: as many
                  as there are cores; 1 with a GPU).
  --size S        As in run.sh (default ${size}).
  --seed N        As in run.sh (default ${seed}).
  --ngpu N        As in run.sh, for each experiment.
  --avsr_args A   As in run.sh, for all experiments.
  --datadir DIR   As in run.sh; likewise --dumpdir and --expdir.

Finished work is kept: an interrupted call resumes where it stopped, and an experiment whose
RESULTS.md is newer than its model is not decoded again. One that fails does not stop the others. All
other options go to run.sh:
"

help_of=./run.sh
own_options="${own_options:?} size seed seeds jobs ngpu avsr_args datadir dumpdir expdir"
# shellcheck source=scripts/utils/take_options.sh
. scripts/utils/take_options.sh
# shellcheck source=local/variant.sh
. local/variant.sh
seeds="${seeds:-${seed}}"
for one_seed in ${seeds}; do
    [[ ${one_seed} =~ ^[0-9]+$ ]] || smop_option_error "--seeds must be numbers, not '${one_seed}'"
done
[[ ${jobs} =~ ^[0-9]+$ ]] || smop_option_error "--jobs must be a number, not '${jobs}'"
# shellcheck source=scripts/utils/gpu_args.sh
. scripts/utils/gpu_args.sh
# shellcheck source=path.sh
. ./path.sh

experiments=()
configs=()
arguments=()
views=()

# Adds expdir/avsr_NAME, or expdir/avsr_NAME_seedN for another seed than the corpus's.
add_experiment() { # NAME CONFIG SEED [ARGUMENTS OF THE TRAINING [VIEWS TO DECODE]]
    local suffix="" args="${avsr_args}${4:+ $4}"
    if [ "$3" != "${seed}" ]; then
        suffix="_seed$3"
        args+=" --seed $3"
    fi
    experiments+=("${expdir}/avsr_$1${suffix}")
    configs+=("$2")
    arguments+=("${args# }")
    views+=("${5:-}")
}

is_scored() { # EXPERIMENT
    [ "$1/RESULTS.md" -nt "$1/valid.acc.ave.pth" ]
}

# Runs stages of one experiment.
run_one() { # INDEX [OPTION VALUE]…
    local args=() task="${configs[$1]##*/train_}"
    task="${task%%_*}"
    case "${task}" in asr | vsr) ;; *) task=avsr ;; esac
    [ -z "${arguments[$1]}" ] || args=(--avsr_args "${arguments[$1]}")
    [ -z "${views[$1]}" ] || args+=(--views "${views[$1]}")
    ./run.sh --tasks "${task}" --size "${size}" --seed "${seed}" --ngpu "${ngpu}" \
        --datadir "${datadir}" --dumpdir "${dumpdir}" --expdir "${expdir}" \
        --"${task}"_config "${configs[$1]}" --skip_stages 16 --summary false \
        "${args[@]}" "${@:2}" --avsr_exp "${experiments[$1]}"
}

as_hours() { # SECONDS
    printf '%d:%02d h' $(($1 / 3600)) $(($1 % 3600 / 60))
}

# Runs experiments not scored yet. Puts those that have results into `scored`, names of those that
# failed into `failed`.
run_experiments() {
    local left=() index begin pid status finished=0 share=()
    local -A running=() # process → index
    scored=()
    failed=()
    for index in "${!experiments[@]}"; do
        if is_scored "${experiments[index]}"; then
            echo "${experiments[index]} is scored"
        else
            left+=("${index}")
        fi
    done

    # The jobs of all experiments end when this process has ended.
    export AVSR_SMOP_DRIVER_PIDS="${AVSR_SMOP_DRIVER_PIDS:-} $$"
    # Stage 10 comes after data and base models, which all experiments share.
    if [ ${#left[@]} -gt 0 ] && [ ! -s "${expdir}/avsr_stats/valid/duration_shape" ]; then
        run_one "${left[0]}" "${other_args[@]}" --stop_stage 10
    fi

    if [ "${jobs}" -eq 0 ]; then jobs=$((ngpu > 0 ? 1 : SMOP_CORES)); fi
    if [ "${jobs}" -gt ${#left[@]} ]; then jobs=$((${#left[@]} > 0 ? ${#left[@]} : 1)); fi
    if [ "${ngpu}" -eq 0 ]; then
        local threads=$((SMOP_CORES > jobs ? SMOP_CORES / jobs : 1))
        share=(--num_threads "${threads}" --inference_nj "${threads}")
    fi
    begin="${SECONDS}"
    while [ "${finished}" -lt ${#left[@]} ]; do
        while [ ${#running[@]} -lt "${jobs}" ] && [ $((finished + ${#running[@]})) -lt ${#left[@]} ]; do
            index="${left[finished + ${#running[@]}]}"
            mkdir -p "${experiments[index]}"
            echo "${experiments[index]}: log ${experiments[index]}/run.log"
            run_one "${index}" --stage 11 "${share[@]}" "${other_args[@]}" \
                >> "${experiments[index]}/run.log" 2>&1 < /dev/null &
            running[$!]="${index}"
        done
        status=0
        wait -n -p pid "${!running[@]}" || status=$?
        index="${running[${pid}]}"
        unset "running[${pid}]"
        finished=$((finished + 1))
        if [ "${status}" -ne 0 ]; then
            failed+=("${experiments[index]##*/}")
            echo "${experiments[index]} failed, see ${experiments[index]}/run.log" >&2
        fi
        echo "$((${#experiments[@]} - ${#left[@]} + finished - ${#failed[@]}))" \
            "of ${#experiments[@]} experiments done, ${#failed[@]} failed," \
            "$((${#left[@]} - finished)) left:" \
            "about $(as_hours $(((SECONDS - begin) * (${#left[@]} - finished) / finished)))"
    done

    for index in "${!experiments[@]}"; do
        if is_scored "${experiments[index]}"; then scored+=("${experiments[index]}"); fi
    done
}

# Ends the script: status 1 if an experiment failed.
end_series() {
    [ ${#failed[@]} -eq 0 ] || {
        echo "${0##*/}: failed: ${failed[*]}. See their run.log in ${expdir}; the same command resumes" >&2
        exit 1
    }
}
