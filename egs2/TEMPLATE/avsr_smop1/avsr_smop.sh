#!/usr/bin/env bash
# The stages of an audio-visual recipe, from a corpus to RESULTS.md. A recipe's run.sh calls this
# with its corpus's settings; `--help` explains the options.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail
shopt -s inherit_errexit

log() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S') $*"
}
fail() {
    echo "${smop_called##*/}: $*" >&2
    exit 1
}

# General
stage=1
stop_stage=10000
skip_stages=""
skip_data_prep=false
skip_train=false
skip_eval=false
skip_packing=true
skip_upload=true
ngpu=1
num_nodes=1
nj=8
inference_nj=8
gpu_inference=false
num_threads=0
datadir=data
dumpdir=dump
expdir=exp
python=""

# Data
local_data_opts=""
landmarks=auto
landmarks_conf=""
allow_broken=false
min_wav_duration=0.2
max_wav_duration=24
min_chars=1
max_chars=600

# Tokenizer and base models
train_tokenizer=false
nbpe=200
base_models_opts=""

# Noise
noise=""
babble_utts=30
snrs=clean

# Training
modality=auto
avsr_tag=""
avsr_exp=""
avsr_stats_dir=""
avsr_config=conf/train_avsr.yaml
avsr_args=""
feats_cache=""
pretrained_model=""

# Decoding and scoring
inference_config=conf/decode.yaml
inference_args=""
inference_tag=""
views=""
inference_avsr_model=valid.acc.ave.pth
download_model=""
score_opts=""

# Sets
train_set=""
pretrain_set=""
valid_set=""
test_sets=""

# Sharing
pack_opts=""
hf_repo=""
upload_dry_run=false

explain() {
help_message="Usage: $(basename "$0") --train_set NAME --valid_set NAME --test_sets NAMES [--option VALUE]…

Stages: 1 data directories · 3 audio and mouth crops · 4 filter · 5 tokenizer
        6 base models · 7 noise · 10 shapes · 11 train · 12 decode · 13 score · 14 pack
        15 upload · 16 analysis

General
  --stage N             First stage to run (default ${stage}).
  --stop_stage N        Last stage to run (default: the last).
  --skip_stages LIST    Stages to skip, e.g. \"5 6\".
  --skip_data_prep B    Skip stages 1–7 (default ${skip_data_prep}).
  --skip_train B        Skip stages 10–11 (default ${skip_train}).
  --skip_eval B         Skip stages 12–13 and 16 (default ${skip_eval}).
  --skip_packing B      Skip stage 14 (default ${skip_packing}).
  --skip_upload B       Skip stage 15 (default ${skip_upload}).
  --ngpu N              GPUs per node for training; 0 trains on the CPU (default ${ngpu}).
  --num_nodes N         Nodes for training, each with ngpu GPUs and the same directories; needs a
                        multi-node back end, see cmd.sh (default ${num_nodes}).
  --nj N                Parallel jobs of data preparation (default ${nj}).
  --inference_nj N      Parallel jobs of decoding (default ${inference_nj}).
  --gpu_inference B     Decode on GPUs; needs --ngpu 1 or more (default ${gpu_inference}).
  --num_threads N       CPU threads of each training process; 0: all cores without a GPU, 4 with
                        (default ${num_threads}).
  --datadir DIR         Data directories (default ${datadir}).
  --dumpdir DIR         Features (default ${dumpdir}).
  --expdir DIR          Experiments (default ${expdir}).
  --python PROGRAM      Python to use instead of the one that path.sh finds.
                        Back ends for parallel jobs are chosen in cmd.sh.

Data
  --train_set NAME      Training set, a directory below datadir.
  --pretrain_set NAME   Set on which local/base_models.sh pretrains base models, if it does
                        (default: the training set). Encoders memorise their pretraining
                        sentences, so the training set should have others.
  --valid_set NAME      Validation set.
  --test_sets NAMES     Test sets, separated by spaces.
  --local_data_opts O   Options for local/data.sh, which gets --data_dir as well.
  --landmarks NAME      Face landmarks of stage 3: see data_dir format --help (default ${landmarks}).
  --landmarks_conf CONF Its options, e.g. every=5.
  --allow_broken B      Continue when a test set loses broken clips (default ${allow_broken}).
  --min_wav_duration S  Drop shorter utterances from train and valid (seconds; default ${min_wav_duration}).
  --max_wav_duration S  Drop longer utterances from train and valid (seconds; default ${max_wav_duration}).
  --min_chars N         Drop shorter transcripts from train and valid (default ${min_chars}).
  --max_chars N         Drop longer transcripts from train and valid (default ${max_chars}).

Tokenizer and base models
  --train_tokenizer B   Train a tokenizer with local/tokenizer.sh, for an LLM that the recipe pretrains
                        itself; otherwise the published LLM's own is used (default ${train_tokenizer}).
  --nbpe N              Size of the trained vocabulary (default ${nbpe}).
  --base_models_opts O  Options for local/base_models.sh.

Noise
  --noise FILE          Noise (WAV or FLAC) for decoding, and for training where the config names
                        dump/noise/babble.wav (default: babble of training utterances, made by
                        stage 7 in dumpdir/noise/babble.wav).
  --babble_utts N       Number of utterances mixed into the babble (default ${babble_utts}).
  --snrs LIST           Decode each test set at these SNRs in dB, e.g. \"clean 5 0 -5\"
                        (default ${snrs}). Without an audio frontend, only clean is decoded.

Training
  --modality M          Inputs of the model: asr, vsr, avsr, or auto: those of the config's
                        frontends (default ${modality}).
  --avsr_config FILE    Training config; may name another as its base (default ${avsr_config}).
  --avsr_args ARGS      Further arguments for avsr_train, which override the config, e.g.
                        \"--max_epoch 5 --projector_conf routing=jejr\".
  --feats_cache DIR     Compute the features of frozen frontends once, for train and valid, store
                        them in DIR and train on them. A cache of the same base models, settings
                        and data is reused. Noise and augmentation differ in every epoch: with
                        them a modality is not cached, unless preprocessor_conf.feats_copies says
                        how many versions of an utterance are enough (default: no cache).
  --avsr_tag TAG        The experiment is expdir/avsr_TAG (default: from config and arguments).
  --avsr_exp DIR        The experiment's directory, whatever the tag.
  --avsr_stats_dir DIR  Shape files (default expdir/avsr_stats).
  --pretrained_model P  Start from these trained parameters (ESPnet's --init_param).

Decoding and scoring
  --inference_config F        Decoding config (default ${inference_config}).
  --inference_args ARGS       Further arguments for avsr_inference, e.g. \"--beam_size 5\".
  --inference_tag TAG         Name of the decode directory (default: from config, arguments, model).
  --views LIST                Decode a model of several tasks and rates once for each of these, e.g.
                              \"asr:4 vsr:2 avsr:4,2 avsr:16,5\", with frames per token of audio and
                              video; each has a decode directory of its own.
  --inference_avsr_model F    Checkpoint in the experiment (default ${inference_avsr_model}).
  --download_model M          Decode with a trained model instead of training: a directory that
                              holds config.yaml and the checkpoint, or a hub id.
  --score_opts OPTS           More options for sclite.

Sharing
  --pack_opts OPTS      More options for stage 14, e.g. \"--include_bases true\".
  --hf_repo ID          Hub repository that stage 15 uploads to; the token is in HF_TOKEN.
  --upload_dry_run B    Only list what stage 15 would upload (default ${upload_dry_run})."
}
explain

command_line="$(basename "$0")$(printf ' %q' "$@")"
# shellcheck source=scripts/utils/parse_options.sh
. scripts/utils/parse_options.sh
[ $# -eq 0 ] || smop_option_error "unexpected argument '$1'"

[ -n "${train_set}" ] || smop_option_error "--train_set is required"
all_train_sets="${train_set}"
if [ -z "${pretrain_set}" ]; then
    pretrain_set="${train_set}"
elif [ "${pretrain_set}" != "${train_set}" ]; then
    all_train_sets="${pretrain_set} ${train_set}"
fi
[ -n "${valid_set}" ] || smop_option_error "--valid_set is required"
[ -n "${test_sets}" ] || smop_option_error "--test_sets is required"
for value in stage stop_stage ngpu num_nodes nj inference_nj num_threads nbpe babble_utts \
    min_chars max_chars; do
    [[ ${!value} =~ ^[0-9]+$ ]] || smop_option_error "--${value} must be a number, not '${!value}'"
done
for value in min_wav_duration max_wav_duration; do
    [[ ${!value} =~ ^[0-9]+(\.[0-9]+)?$ ]] \
        || smop_option_error "--${value} must be a number of seconds, not '${!value}'"
done
for value in nj inference_nj num_nodes babble_utts; do
    [ "${!value}" -gt 0 ] || smop_option_error "--${value} must be 1 or more"
done
for view in ${views}; do
    [[ ${view} =~ ^(asr(:[0-9]+)?|vsr(:[0-9]+)?|avsr(:[0-9]+,[0-9]+)?)$ ]] \
        || smop_option_error "--views: '${view}' is not of the form asr:4, vsr:2 or avsr:4,2"
done
for snr in ${snrs}; do
    [[ ${snr} =~ ^(clean|-?[0-9]+(\.[0-9]+)?)$ ]] \
        || smop_option_error "--snrs: '${snr}' is neither clean nor a number of dB"
done
case "${modality}" in
    auto | asr | vsr | avsr) ;;
    *) smop_option_error "--modality must be auto, asr, vsr or avsr, not '${modality}'" ;;
esac

# Which stages run
known_stages="1 3 4 5 6 7 10 11 12 13 14 15 16"
if [ "${stage}" -gt 16 ]; then
    smop_option_error "there is no stage ${stage}; the stages are ${known_stages}"
fi
if [ "${stage}" -gt "${stop_stage}" ]; then
    smop_option_error "--stage ${stage} comes after --stop_stage ${stop_stage}: nothing would run"
fi
for number in ${skip_stages}; do
    [[ " ${known_stages} " == *" ${number} "* ]] || smop_option_error \
        "--skip_stages: there is no stage '${number}'; the stages, separated by spaces, are ${known_stages}"
done
[ -z "${download_model}" ] || skip_train=true
if "${skip_data_prep}"; then skip_stages+=" 1 3 4 5 6 7"; fi
if "${skip_train}"; then skip_stages+=" 10 11"; fi
if "${skip_eval}"; then skip_stages+=" 12 13 16"; fi
if "${skip_packing}"; then skip_stages+=" 14"; fi
if "${skip_upload}"; then skip_stages+=" 15"; fi
stages_to_run=" "
for number in ${known_stages}; do
    if [ "${number}" -ge "${stage}" ] && [ "${number}" -le "${stop_stage}" ] \
        && [[ " ${skip_stages} " != *" ${number} "* ]]; then
        stages_to_run+="${number} "
    fi
done
runs() { [[ ${stages_to_run} == *" $1 "* ]]; } # STAGE
# These are off by default: --stage alone would silently skip them.
if [ "${stage}" -eq 14 ] && ! runs 14; then
    smop_option_error "stage 14 is skipped: add --skip_packing false"
elif [ "${stage}" -eq 15 ] && ! runs 15; then
    smop_option_error "stage 15 is skipped: add --skip_upload false"
elif [ "${stages_to_run}" = " " ] && [ -n "${SMOP_DATA_IS_SHARED:-}" ]; then
    exit 0 # run.sh calls again for each of its systems
elif [ "${stages_to_run}" = " " ]; then
    smop_option_error "nothing to do: all stages from ${stage} to ${stop_stage} are skipped"
fi
if runs 15 && [ -z "${hf_repo}" ]; then
    smop_option_error "--hf_repo ID is required: stage 15 uploads there"
fi

was_given() { [[ ${smop_given} == *" $1 "* ]]; }

# Options that would have no effect
if [ "${ngpu}" -eq 0 ] && "${gpu_inference}"; then
    smop_option_error "--ngpu 0 decodes on the CPU: leave out --gpu_inference true, or give --ngpu 1"
fi
if ! "${train_tokenizer}" && was_given nbpe; then
    smop_option_error "--nbpe needs --train_tokenizer true: a published LLM has its own tokenizer"
fi
if [ -n "${noise}" ] && was_given babble_utts; then
    smop_option_error "--babble_utts has no effect with --noise: no babble is made"
fi
if [ -n "${base_models_opts}" ] && [ ! -x local/base_models.sh ]; then
    smop_option_error "--base_models_opts: the recipe has no local/base_models.sh"
fi
if "${skip_packing}" && was_given pack_opts; then
    smop_option_error "--pack_opts is for stage 14, which is skipped: add --skip_packing false"
fi
for value in hf_repo upload_dry_run; do
    if "${skip_upload}" && was_given "${value}"; then
        smop_option_error "--${value} is for stage 15, which is skipped: add --skip_upload false"
    fi
done

# Splits a string of arguments as a shell would, quotes included, into the array `words`.
split_words() {
    local lines
    words=()
    [ -n "${1// /}" ] || return 0
    lines="$(xargs printf '%s\n' <<< "$1")" || fail "quotes do not match: $1"
    mapfile -t words <<< "${lines}"
}
split_words "${avsr_args}"
avsr_args_array=("${words[@]}")
split_words "${inference_args}"
inference_args_array=("${words[@]}")
split_words "${local_data_opts}"
local_data_opts_array=("${words[@]}")
split_words "${pack_opts}"
pack_opts_array=("${words[@]}")
split_words "${base_models_opts}"
base_models_opts_array=("${words[@]}")
if [[ " ${local_data_opts} " == *" --data_dir "* ]]; then
    smop_option_error "--local_data_opts: data directories are named by --datadir, not --data_dir"
fi

# local/*.sh read it from there, too.
[ -z "${python}" ] || export ESPNET_SMOP_PYTHON="${python}"
# shellcheck source=path.sh
. ./path.sh
# shellcheck source=cmd.sh
. ./cmd.sh
python="${SMOP_PYTHON}"
read -r -a train_cmd_array <<< "${train_cmd}"
read -r -a cuda_cmd_array <<< "${cuda_cmd}"
if "${gpu_inference}"; then
    read -r -a inference_cmd_array <<< "${cuda_cmd}"
    inference_ngpu=1
else
    read -r -a inference_cmd_array <<< "${decode_cmd}"
    inference_ngpu=0
fi
if [ "${num_nodes}" -gt 1 ] && runs 11; then
    case "${cuda_cmd_array[0]##*/}" in
        local.py | run.pl | ssh.pl)
            smop_option_error "--num_nodes ${num_nodes}: ${cuda_cmd_array[0]##*/} has one node only." \
                "Choose a multi-node back end in cmd.sh, such as cmd_backend=slurm"
            ;;
    esac
fi
# Back ends end their jobs when this process, or the run.sh that called it, has ended.
export AVSR_SMOP_DRIVER_PIDS="${AVSR_SMOP_DRIVER_PIDS:-} $$"

data_feats="${dumpdir}/raw"
default_noise=dump/noise/babble.wav
noise_is_made=false
if [ -z "${noise}" ]; then
    noise="${dumpdir}/noise/babble.wav"
    noise_is_made=true
elif [ ! -s "${noise}" ]; then
    smop_option_error "--noise ${noise} does not exist"
fi
noise_name="$(basename "${noise}")"
noise_name="${noise_name%.*}"
noise_name="${noise_name//_/-}" # underscores separate the parts of decode directories' names
token_dir="${datadir}/token_list/bpe_unigram${nbpe}"
avsr_stats_dir="${avsr_stats_dir:-${expdir}/avsr_stats}"

log "${command_line}"

# Turns arguments into part of a directory name.
as_tag() {
    tr -cs 'A-Za-z0-9.=_\n' '_' <<< "$1" | sed -e 's/_*$//'
}

tag_of_config() {
    local name
    name="$(basename "$1")"
    echo "${name%.*}"
}

if [ -n "${download_model}" ]; then
    avsr_exp="${avsr_exp:-${expdir}/$(as_tag "${download_model}")}"
fi
if [ -z "${avsr_exp}" ]; then
    if [ -z "${avsr_tag}" ]; then
        avsr_tag="$(tag_of_config "${avsr_config}")$(as_tag "${avsr_args:+ ${avsr_args}}")"
    fi
    avsr_exp="${expdir}/avsr_${avsr_tag}"
fi
if [ -z "${inference_tag}" ]; then
    inference_tag="$(tag_of_config "${inference_config}")"
    inference_tag+="$(as_tag "${inference_args:+ ${inference_args}}")"
    inference_tag+="_avsr_model_${inference_avsr_model%.pth}"
fi

# Locks a file, and waits for the run that has it: two at once would mix what they write. The
# commands that this run calls hold the lock as well.
lock_fd=""
lock() { # FILE
    local status=0
    command -v flock > /dev/null || return 0
    mkdir -p "$(dirname "$1")"
    exec {lock_fd}>> "$1"
    flock --nonblock --conflict-exit-code 200 "${lock_fd}" 2> /dev/null || status=$?
    if [ "${status}" -eq 200 ]; then
        log "$1 is locked by another run: waiting"
        status=0
        flock "${lock_fd}" || status=$?
    fi
    [ "${status}" -eq 0 ] \
        || log "$1: the file system has no locks; do not start a second run here" >&2
}

unlock() {
    [ -z "${lock_fd}" ] || exec {lock_fd}>&-
    lock_fd=""
}

# Whether a stage runs; if so, logs its title and starts its timer.
current_stage=0
stage_times=()
begin_stage() { # NUMBER TITLE
    local number="$1"
    end_stage
    runs "${number}" || return 1
    current_stage="${number}"
    stage_begin="${SECONDS}"
    log "Stage ${number}: $2"
    # Stages 1 to 7 write what all experiments share.
    if [ "${number}" -gt 7 ]; then
        unlock
    elif [ -z "${lock_fd}" ]; then
        lock "${dumpdir}/.stages.lock"
    fi
}

end_stage() {
    if [ "${current_stage}" -gt 0 ]; then
        stage_times+=("stage ${current_stage}: $(as_time $((SECONDS - stage_begin)))")
        current_stage=0
    fi
}

as_time() {
    if [ "$1" -ge 3600 ]; then
        echo "$(($1 / 3600)) h $(($1 % 3600 / 60)) min"
    elif [ "$1" -ge 60 ]; then
        echo "$(($1 / 60)) min $(($1 % 60)) s"
    else
        echo "$1 s"
    fi
}

on_exit() {
    local status=$?
    if [ "${status}" -ne 0 ] && [ "${current_stage}" -gt 0 ]; then
        log "Stage ${current_stage} failed. Fix the cause, then resume with --stage ${current_stage}" >&2
    fi
}
trap on_exit EXIT

# Fails with a message unless the files of an earlier stage exist.
need() { # STAGE FILE…
    local number="$1" file
    shift
    for file in "$@"; do
        [ -s "${file}" ] || fail "${file} is missing or empty: run stage ${number} first"
    done
}

# The names in a directory that match "*END", without END.
names_in() { # DIR END
    local path names=""
    for path in "$1"/*"$2"; do
        [ -s "${path}" ] || continue
        path="${path#"$1"/}"
        names+="${path%"$2"} "
    done
    echo "${names% }"
}

# Fails with a message unless the sets have been made; a set's name may be wrong.
need_sets() { # STAGE DIR SET…
    local number="$1" dir="$2" dset found
    shift 2
    for dset in "$@"; do
        [ ! -s "${dir}/${dset}/text" ] || continue
        found="$(names_in "${dir}" /text)"
        [ -n "${found}" ] || need "${number}" "${dir}/${dset}/text"
        fail "there is no set ${dset} in ${dir}, which has ${found}: correct the name, or run" \
            "stage ${number} first"
    done
}

# Fails with a message unless there is a trained model; the experiment's name or the checkpoint's
# may be wrong.
need_model() {
    local found
    if [ ! -s "${avsr_exp}/config.yaml" ]; then
        found="$(names_in "$(dirname "${avsr_exp}")" /config.yaml)"
        [ -n "${found}" ] || need 11 "${avsr_exp}/config.yaml"
        fail "there is no experiment ${avsr_exp}, only ${found// /, }: see --avsr_tag, or run stage 11 first"
    fi
    if [ ! -s "${avsr_exp}/${inference_avsr_model}" ]; then
        found="$(names_in "${avsr_exp}" .pth)"
        [ -n "${found}" ] || need 11 "${avsr_exp}/${inference_avsr_model}"
        fail "${avsr_exp} has no ${inference_avsr_model}, only ${found// /.pth, }.pth: see --inference_avsr_model"
    fi
}

# Fails with a message if an input is missing that no stage of this call makes.
check_inputs() {
    local dset sets=()
    if runs 1; then
        [ -x local/data.sh ] || fail "the recipe has no local/data.sh: begin with --stage 3"
    fi
    for dset in ${all_train_sets} "${valid_set}"; do sets+=("${dset}"); done
    if runs 3 && ! runs 1; then
        # shellcheck disable=SC2086 # names of sets
        need_sets 1 "${datadir}" "${sets[@]}" ${test_sets}
    fi
    if runs 4 && ! runs 3; then need_sets 3 "${data_feats}/org" "${sets[@]}"; fi
    if { runs 10 || runs 11; } && ! runs 4; then
        need_sets 4 "${data_feats}" "${train_set}" "${valid_set}"
    fi
    if runs 11; then
        [ -s "${avsr_config}" ] || fail "--avsr_config ${avsr_config} does not exist"
        [ -z "${pretrained_model}" ] || [ -s "${pretrained_model%%:*}" ] \
            || fail "--pretrained_model ${pretrained_model%%:*} does not exist"
        if ! runs 10; then
            for dset in "${train_set}" "${valid_set}"; do
                need 10 "${avsr_stats_dir}/${dset}/duration_shape"
            done
        fi
    fi
    if runs 12 || runs 14 || runs 16; then
        if ! runs 11 && [ -z "${download_model}" ]; then need_model; fi
    fi
    if runs 12 || runs 14; then
        [ -s "${inference_config}" ] || fail "--inference_config ${inference_config} does not exist"
    fi
    # shellcheck disable=SC2086 # names of sets
    if { runs 12 || runs 13; } && ! runs 3; then need_sets 3 "${data_feats}" ${test_sets}; fi
    if runs 15 && ! runs 14; then need 14 "${avsr_exp}/packed.zip"; fi
}
check_inputs

# Configs name the noise by its default path.
noise_args=()
if runs 11 && [ "${noise}" != "${default_noise}" ]; then
    settings="$("${python}" -m espnet_smop.bin.config show "${avsr_config}")"
    if grep -qx " *file: ${default_noise}" <<< "${settings}"; then
        noise_args=(--preprocessor_conf "noise.file=${noise}")
    fi
fi

# Fails, before anything is written, if a stage cannot run or does not match existing files.
check_stages() {
    local dset wanted="" dirs=() opts=() place="${data_feats}" decode_args="${inference_args}"
    local is_local=false # other back ends' GPUs are not this machine's
    case "${cuda_cmd_array[0]##*/}" in local.py | run.pl) is_local=true ;; esac
    if runs 3; then
        place="${datadir}"
        wanted="${all_train_sets} ${valid_set} ${test_sets}"
        opts+=(--landmarks "${landmarks}" --dump_dir "${dumpdir}")
    else
        if runs 11; then wanted="${train_set} ${valid_set}"; fi
        if runs 12; then wanted+=" ${test_sets}"; fi
    fi
    for dset in ${wanted}; do dirs+=("${place}/${dset}"); done
    if runs 12; then
        if "${gpu_inference}" && "${is_local}"; then decode_args="--ngpu 1 ${decode_args}"; fi
        opts+=(--inference_config "${inference_config}" "--inference_args=${decode_args}")
    fi
    if runs 11; then
        if "${is_local}"; then opts+=(--ngpu "${ngpu}"); fi
        opts+=(--config "${avsr_config}" --output_dir "${avsr_exp}" "${noise_args[@]}")
        opts+=("${avsr_args_array[@]}")
    elif runs 12 && [ -s "${avsr_exp}/config.yaml" ]; then
        opts+=(--exp_dir "${avsr_exp}")
    elif ! runs 3; then
        return 0 # the model of --download_model is fetched later
    fi
    "${python}" -m espnet_smop.bin.check_config --stages "${stages_to_run}" \
        --data_dirs "${dirs[@]}" "${opts[@]}"
}
if runs 3 || runs 11 || runs 12; then check_stages; fi

# "audio", "video" or "audio video": the inputs of a config's model.
modalities_of() { # CONFIG [ARGUMENT]…
    case "${modality}" in
        asr) echo audio ;;
        vsr) echo video ;;
        avsr) echo audio video ;;
        auto) "${python}" -m espnet_smop.bin.config modalities "$@" ;;
    esac
}

# Whether a formatted set has a modality.
has() { # STAGE MODALITY SET
    local file=wav.scp
    if [ "$2" = video ]; then file=video.scp; fi
    need "$1" "${data_feats}/$3/text"
    [ -s "${data_feats}/$3/${file}" ]
}

# Fails with a message unless a set has a model's inputs.
need_modalities() { # STAGE SET MODALITIES
    local name
    for name in $3; do
        has "$1" "${name}" "$2" \
            || fail "${data_feats}/$2 has no ${name}, which the model needs: choose another --avsr_config"
    done
}

make_noise() {
    if ! "${noise_is_made}"; then
        log "noise: ${noise}"
    elif [ "${noise}" -nt "${data_feats}/${train_set}/wav.scp" ]; then
        log "${noise} exists and is newer than the training set"
    elif has 4 video "${train_set}" && ! has 4 audio "${train_set}"; then
        log "the corpus has no audio: no noise is made"
    else
        need 4 "${data_feats}/${train_set}/wav.scp"
        mkdir -p "$(dirname "${noise}")"
        "${python}" -m espnet_smop.bin.data_dir babble --data_dir "${data_feats}/${train_set}" \
            --out "${noise}" --num_utts "${babble_utts}" --seed 0
    fi
}

if begin_stage 1 "local/data.sh: corpus → ${datadir}/{${all_train_sets// /,},${valid_set},${test_sets// /,}}"; then
    local/data.sh "${local_data_opts_array[@]}" --data_dir "${datadir}"
    dirs=()
    for dset in ${all_train_sets} "${valid_set}" ${test_sets}; do
        [ -s "${datadir}/${dset}/text" ] || fail "local/data.sh has not written ${datadir}/${dset}/text," \
            "only the sets $(names_in "${datadir}" /text)"
        dirs+=("${datadir}/${dset}")
    done
    "${python}" -m espnet_smop.bin.data_dir fix "${dirs[@]}"
fi

if begin_stage 3 "audio → FLAC, video → mouth crops in ${data_feats}"; then
    for dset in ${all_train_sets} "${valid_set}" ${test_sets}; do
        opts=(--landmarks "${landmarks}")
        if [ -n "${landmarks_conf}" ]; then opts+=(--landmarks_conf "${landmarks_conf}"); fi
        if [[ " ${all_train_sets} ${valid_set} " == *" ${dset} "* ]]; then
            out="${data_feats}/org/${dset}"
        else
            # A test set loses nothing: stage 4 does not filter it either.
            out="${data_feats}/${dset}"
            opts+=(--strict_test)
        fi
        combine_opts=()
        if "${allow_broken}"; then combine_opts=(--allow_broken); fi
        count="$(wc -l < "${datadir}/${dset}/text")"
        num_jobs=$((nj < count ? nj : count))
        log "${dset}: ${count} utterances by ${num_jobs} jobs, logs in ${out}/logs"
        "${train_cmd_array[@]}" JOB=1:"${num_jobs}" "${out}/logs/format.JOB.log" \
            "${python}" -m espnet_smop.bin.data_dir format --data_dir "${datadir}/${dset}" \
            --out_dir "${out}" --num_jobs "${num_jobs}" --job JOB "${opts[@]}"
        "${python}" -m espnet_smop.bin.data_dir combine --data_dir "${datadir}/${dset}" \
            --out_dir "${out}" "${combine_opts[@]}"
    done
fi

if begin_stage 4 "drop too long, too short and empty utterances of train and valid"; then
    for dset in ${all_train_sets} "${valid_set}"; do
        "${python}" -m espnet_smop.bin.data_dir filter --in_dir "${data_feats}/org/${dset}" \
            --out_dir "${data_feats}/${dset}" --min_seconds "${min_wav_duration}" \
            --max_seconds "${max_wav_duration}" --min_chars "${min_chars}" --max_chars "${max_chars}"
    done
fi

if begin_stage 5 "tokenizer"; then
    if "${train_tokenizer}"; then
        need 4 "${data_feats}/${pretrain_set}/text"
        [ -x local/tokenizer.sh ] || fail "--train_tokenizer true: the recipe has no local/tokenizer.sh"
        local/tokenizer.sh --text "${data_feats}/${pretrain_set}/text" \
            --vocab_size "${nbpe}" --out "${token_dir}"
    else
        log "the published LLM's own tokenizer is used"
    fi
fi

if begin_stage 6 "base models"; then
    if [ -x local/base_models.sh ]; then
        # The recipe pretrains encoders with noise: it is made here unless it exists.
        if "${train_tokenizer}"; then make_noise; fi
        local/base_models.sh --train_dir "${data_feats}/${pretrain_set}" \
            --valid_dir "${data_feats}/${valid_set}" --tokenizer "${token_dir}" \
            --noise "${noise}" --out "${expdir}/base" --avsr_config "${avsr_config}" \
            "${base_models_opts_array[@]}"
    else
        log "no local/base_models.sh: base models are fetched on loading"
    fi
fi

if begin_stage 7 "noise"; then
    make_noise
fi

if begin_stage 10 "shape files in ${avsr_stats_dir}"; then
    for dset in "${train_set}" "${valid_set}"; do
        "${python}" -m espnet_smop.bin.data_dir shapes --data_dir "${data_feats}/${dset}" \
            --out_dir "${avsr_stats_dir}/${dset}"
    done
fi

# Makes or checks the feature caches; puts their names into `cached`, by modality, where the config
# allows them.
cache_feats() { # MODALITY…
    local name state report="${avsr_exp}/feats_cache.txt"
    log "features of ${train_set} and ${valid_set} in ${feats_cache}"
    OMP_NUM_THREADS="${num_threads}" "${cuda_cmd_array[@]}" \
        --gpu "$((ngpu > 0 ? 1 : 0))" --num_threads "${num_threads}" "${avsr_exp}/feats_cache.log" \
        "${python}" -m espnet_smop.bin.cache_feats --config "${avsr_config}" --modality "$@" \
        --train_dir "${data_feats}/${train_set}" --data_dir "${data_feats}/${valid_set}" \
        --out "${feats_cache}" --report "${report}" "${noise_args[@]}" "${avsr_args_array[@]}"
    while read -r name state; do
        case "${state}" in
            "cached as "*) cached[${name}]="${state#cached as }" ;;
            *) log "${name} features are not cached, training computes them: ${state}" ;;
        esac
    done < "${report}"
}

# Adds a training input to `opts`: the frontend's input, or its cached output.
add_input() { # KIND SET MODALITY FILE,NAME,TYPE
    local data="${data_feats}/$2/$4" name
    name="$(cut -d, -f2 <<< "$4")"
    if [ -n "${cached[$3]:-}" ]; then
        data="${feats_cache}/$2_${cached[$3]}/feats.scp,${name}_feats,kaldi_ark"
    fi
    opts+=("--$1_data_path_and_name_and_type" "${data}")
}

if begin_stage 11 "training in ${avsr_exp}, log ${avsr_exp}/train.log"; then
    modalities="$(modalities_of "${avsr_config}" "${avsr_args_array[@]}")"
    if [ "${num_threads}" -eq 0 ]; then
        num_threads=4
        [ "${ngpu}" -gt 0 ] || num_threads="${SMOP_CORES}"
    fi
    mkdir -p "${avsr_exp}"
    declare -A cached=()
    if [ -n "${feats_cache}" ]; then
        # shellcheck disable=SC2086 # one or two words
        cache_feats ${modalities}
    fi
    opts=()
    for kind in train valid; do
        dset_name="${kind}_set"
        dset="${!dset_name}"
        need_modalities 4 "${dset}" "${modalities}"
        if [[ ${modalities} == *audio* ]]; then
            add_input "${kind}" "${dset}" audio wav.scp,speech,sound
        fi
        if [[ ${modalities} == *video* ]]; then
            add_input "${kind}" "${dset}" video video.scp,video,video
        fi
        opts+=("--${kind}_data_path_and_name_and_type" "${data_feats}/${dset}/text,text,text")
        opts+=("--${kind}_shape_file" "${avsr_stats_dir}/${dset}/duration_shape")
    done
    if [ -n "${pretrained_model}" ]; then
        opts+=(--init_param "${pretrained_model}")
    fi
    node_threads=$((num_threads * (ngpu > 1 ? ngpu : 1))) # a process for each GPU
    log "model of ${modalities}; continues after the last finished epoch, if there is one"
    OMP_NUM_THREADS="${num_threads}" "${python}" -m espnet2.bin.launch \
        --cmd "${cuda_cmd} --num_threads ${node_threads}" \
        --log "${avsr_exp}/train.log" --ngpu "${ngpu}" --num_nodes "${num_nodes}" \
        --init_file_prefix "${avsr_exp}/.dist_init_" --multiprocessing_distributed true -- \
        "${python}" -m espnet_smop.bin.avsr_train --use_preprocessor true "${opts[@]}" \
        --resume true --output_dir "${avsr_exp}" --config "${avsr_config}" \
        "${noise_args[@]}" "${avsr_args_array[@]}"
    log "trained: ${avsr_exp}"
fi

# "audio", "video" or "audio video": a view's inputs; all of the model's if it is "-".
modalities_of_view() { # VIEW
    case "${1%%:*}" in
        asr) echo audio ;;
        vsr) echo video ;;
        avsr) echo audio video ;;
        -) modalities_of "${avsr_exp}/config.yaml" ;;
    esac
}

# A view's rates as avsr_inference takes them: audio=4,video=2. Empty if it names none.
rates_of_view() { # VIEW
    local rates="${1#*:}"
    case "$1" in
        avsr:*) echo "audio=${rates%%,*},video=${rates##*,}" ;;
        asr:*) echo "audio=${rates}" ;;
        vsr:*) echo "video=${rates}" ;;
    esac
}

# A view as part of a directory's name: avsr_a4_v2.
tag_of_view() { # VIEW
    local rates
    rates="$(rates_of_view "$1")"
    rates="${rates//audio=/_a}"
    rates="${rates//video=/_v}"
    echo "${1%%:*}${rates//,/}"
}

# The decode directories of stages 12, 13: a line of "SET SNR VIEW MODALITIES DIRECTORY" each, with
# modalities such as audio+video.
list_decodes() {
    local dset snr view tag modalities
    for view in ${views:--}; do
        modalities="audio"
        [ ! -s "${avsr_exp}/config.yaml" ] || modalities="$(modalities_of_view "${view}")"
        modalities="${modalities// /+}"
        tag="${inference_tag}"
        [ "${view}" = - ] || tag+="_$(tag_of_view "${view}")"
        for dset in ${test_sets}; do
            for snr in ${snrs}; do
                if [ "${snr}" = clean ]; then
                    echo "${dset} clean ${view} ${modalities} ${avsr_exp}/${tag}/${dset}"
                elif [[ ${modalities} == *audio* ]]; then
                    echo "${dset} ${snr} ${view} ${modalities}" \
                        "${avsr_exp}/${tag}/${dset}_${noise_name}_snr${snr}"
                fi
            done
        done
    done
}

# Moves the outputs of jobs that decoded several levels, and the logs, to the levels' directories.
part_levels() { # uses levels, dirs, new, num_jobs
    local i job name to
    for i in "${!levels[@]}"; do
        name="${levels[i]}"
        [ "${name}" = clean ] || name="snr${name}"
        to="${dirs[i]}/logdir.new"
        for ((job = 1; job <= num_jobs; job++)); do
            mv "${new}/levels.${job}/${name}" "${to}/output.${job}"
        done
        [ "${i}" -eq 0 ] || cp "${new}"/{keys.*.scp,avsr_inference.*.log} "${to}"
    done
    rmdir "${new}"/levels.*
}

if begin_stage 12 "decoding in ${avsr_exp}/${inference_tag}"; then
    if [ -n "${download_model}" ]; then
        model_dir="$("${python}" -c 'import sys
from espnet_smop.base_model import BaseModelError, locate
try:
    print(locate(sys.argv[1]).resolve())
except BaseModelError as e:
    sys.exit(str(e))' "${download_model}")"
        mkdir -p "${avsr_exp}"
        if [ ! -s "${model_dir}/${inference_avsr_model}" ] && [ -s "${model_dir}/model.safetensors" ]; then
            inference_avsr_model=model.safetensors # it is a package
        fi
        for file in config.yaml "${inference_avsr_model}"; do
            [ -s "${model_dir}/${file}" ] || fail "${download_model} has no ${file}, only" \
                "$(names_in "${model_dir}" ""); see --inference_avsr_model"
            # A training of its own in the directory is not replaced.
            if [ -e "${avsr_exp}/${file}" ] && [ ! -L "${avsr_exp}/${file}" ]; then
                [ "${model_dir}/${file}" -ef "${avsr_exp}/${file}" ] \
                    || fail "${avsr_exp} holds another experiment: choose another --avsr_exp for" \
                        "--download_model ${download_model}"
            else
                ln -sf "${model_dir}/${file}" "${avsr_exp}/${file}"
            fi
        done
    fi
    need_model
    decodes="$(list_decodes)"
    # One call for all levels of a test set and view: the model is loaded and the video is encoded
    # once.
    groups="$(awk '!seen[$1, $3]++ { print $1, $3, $4 }' <<< "${decodes}")"
    while read -r -u 3 dset view modalities; do
        need_modalities 3 "${dset}" "${modalities//+/ }"
        levels=()
        dirs=()
        while read -r -u 4 set_of_level level view_of_level _ dir; do
            if [ "${set_of_level} ${view_of_level}" = "${dset} ${view}" ] \
                && [[ " ${levels[*]} " != *" ${level} "* ]]; then
                levels+=("${level}")
                dirs+=("${dir}")
            fi
        done 4<<< "${decodes}"
        opts=()
        if [ "${view}" != - ]; then
            opts+=(--task "${view%%:*}")
            rates="$(rates_of_view "${view}")"
            [ -z "${rates}" ] || opts+=(--rates "${rates}")
        fi
        if [[ ${modalities} == *audio* ]]; then
            opts+=(--data_path_and_name_and_type "${data_feats}/${dset}/wav.scp,speech,sound")
        fi
        if [[ ${modalities} == *video* ]]; then
            opts+=(--data_path_and_name_and_type "${data_feats}/${dset}/video.scp,video,video")
        fi
        if [ "${levels[*]}" != clean ]; then
            need 7 "${noise}"
            opts+=(--noise "${noise}" --snr "${levels[@]}")
        fi
        count="$(wc -l < "${data_feats}/${dset}/text")"
        num_jobs=$((inference_nj < count ? inference_nj : count))
        tag="$(basename "$(dirname "${dirs[0]}")")"
        lock "${avsr_exp}/.${tag}.lock"
        # Earlier decodings are replaced only after this one has succeeded.
        for dir in "${dirs[@]}"; do
            rm -rf "${dir}/logdir.new"
            mkdir -p "${dir}/logdir.new"
        done
        new="${dirs[0]}/logdir.new"
        out=output
        if [ "${#levels[@]}" -gt 1 ]; then out=levels; fi
        SMOP_JOBS="${num_jobs}" SMOP_DIR="${new}" awk '{
            print $1, $1 > (ENVIRON["SMOP_DIR"] "/keys." (NR - 1) % ENVIRON["SMOP_JOBS"] + 1 ".scp")
        }' "${data_feats}/${dset}/text"
        log "${dset} ${levels[*]}: ${count} utterances by ${num_jobs} jobs, logs in ${new}"
        "${inference_cmd_array[@]}" --gpu "${inference_ngpu}" \
            JOB=1:"${num_jobs}" "${new}/avsr_inference.JOB.log" \
            "${python}" -m espnet_smop.bin.avsr_inference --ngpu "${inference_ngpu}" "${opts[@]}" \
            --key_file "${new}/keys.JOB.scp" --avsr_train_config "${avsr_exp}/config.yaml" \
            --avsr_model_file "${avsr_exp}/${inference_avsr_model}" \
            --output_dir "${new}/${out}.JOB" --config "${inference_config}" \
            "${inference_args_array[@]}"
        if [ "${out}" = levels ]; then part_levels; fi
        for dir in "${dirs[@]}"; do
            new="${dir}/logdir.new"
            "${python}" -m espnet_smop.bin.results merge --ref "${data_feats}/${dset}/text" \
                --log_dir "${new}" --num_jobs "${num_jobs}" --out_dir "${new}/merged"
            rm -rf "${dir}/logdir" "${dir}"/{text,token,token_int,score,costs.json} \
                "${dir}"/score_{wer,cer}
            mv "${new}"/merged/* "${dir}"
            rmdir "${new}/merged"
            mv "${new}" "${dir}/logdir"
        done
        unlock
    done 3<<< "${groups}"
fi

if begin_stage 13 "scoring in ${avsr_exp}/${inference_tag}"; then
    decodes="$(list_decodes)"
    while read -r -u 3 dset _ _ _ dir; do
        [ ! -d "${dir}/logdir.new" ] \
            || fail "decoding was interrupted in ${dir}/logdir.new: run stage 12 again"
        need 12 "${dir}/text"
        "${python}" -m espnet_smop.bin.results score --ref "${data_feats}/${dset}/text" \
            --hyp "${dir}/text" --utt2spk "${data_feats}/${dset}/utt2spk" --out_dir "${dir}" \
            --score_opts="${score_opts}"
    done 3<<< "${decodes}"
    scripts/utils/show_asr_result.sh "${avsr_exp}" > "${avsr_exp}/RESULTS.md.partial"
    mv "${avsr_exp}/RESULTS.md.partial" "${avsr_exp}/RESULTS.md"
    cat "${avsr_exp}/RESULTS.md"
fi

if begin_stage 14 "packing"; then
    need_model
    "${python}" -m espnet_smop.bin.package pack --exp "${avsr_exp}" \
        --avsr_model_file "${inference_avsr_model}" --inference_config "${inference_config}" \
        --out "${avsr_exp}/packed.zip" "${pack_opts_array[@]}"
fi

if begin_stage 15 "upload"; then
    "${python}" -m espnet_smop.bin.package upload --packed "${avsr_exp}/packed.zip" \
        --repo "${hf_repo}" --dry_run "${upload_dry_run}"
fi

if begin_stage 16 "analysis in ${avsr_exp}/analysis"; then
    opts=(--device cpu)
    if "${gpu_inference}"; then opts=(--device cuda); fi
    # Without data the report shows what was decoded.
    first_set="${data_feats}/${test_sets%% *}"
    if [ -s "${first_set}/text" ]; then opts+=(--data_dir "${first_set}"); fi
    "${python}" -m espnet_smop.bin.results report "${avsr_exp}" --out "${avsr_exp}/analysis" \
        --model "${inference_avsr_model}" "${opts[@]}"
fi

end_stage
for line in "${stage_times[@]}"; do log "${line}"; done
log "finished in $(as_time "${SECONDS}")"
