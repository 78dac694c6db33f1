"""Every option of avsr_smop.sh reaches what it names."""

import re
import shutil

import pytest

pytestmark = pytest.mark.slow

# Notes its arguments beside itself.
NOTE = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$0.arguments"
"""
# Runs an array's jobs one after the other, and notes its own options.
BACK_END = """#!/usr/bin/env bash
set -euo pipefail
echo "$*" >> back_end_calls
while [[ $1 == --* ]]; do shift 2; done
jobs=(1)
if [[ $1 == JOB=* ]]; then mapfile -t jobs < <(seq "${1#JOB=1:}"); shift; fi
for job in "${jobs[@]}"; do
    words=("${@//JOB/${job}}")
    mkdir -p "$(dirname "${words[0]}")"
    "${words[@]:1}" > "${words[0]}" 2>&1
done
"""
ALL = {
    "train_set": "train",
    "pretrain_set": "pretrain",
    "valid_set": "valid",
    "test_sets": "test",
    "datadir": "the data",
    "dumpdir": "the features",
    "expdir": "the experiments",
    "nj": "3",
    "inference_nj": "4",
    "num_threads": "2",
    "local_data_opts": "--of_the_corpus 'a b'",
    "landmarks": "dlib",
    "landmarks_conf": "every=5",
    "allow_broken": "true",
    "min_wav_duration": "0.3",
    "max_wav_duration": "20",
    "min_chars": "2",
    "max_chars": "500",
    "train_tokenizer": "true",
    "nbpe": "99",
    "base_models_opts": "--of_the_models 'c d'",
    "babble_utts": "7",
    "snrs": "clean 5",
    "modality": "avsr",
    "avsr_tag": "the_tag",
    "avsr_stats_dir": "the shapes",
    "avsr_config": "conf/train.yaml",
    "avsr_args": "--max_epoch 3",
    "feats_cache": "the cache",
    "pretrained_model": "the model.pth:decoder",
    "inference_config": "conf/the decoding.yaml",
    "inference_args": "--beam_size 5",
    "inference_tag": "the_decoding",
    "inference_avsr_model": "3epoch.pth",
    "score_opts": "-F",
    "skip_packing": "false",
    "skip_upload": "false",
    "pack_opts": "--license mit",
    "hf_repo": "me/a_model",
    "upload_dry_run": "true",
}
EXP = "the experiments/avsr_the_tag"
# What the calls hold: an option → a command, and words of its arguments that follow one another.
EXPECTED = {
    "train_set": ("data_dir shapes", ["--data_dir", "the features/raw/train"]),
    "pretrain_set": ("data_dir filter", ["--in_dir", "the features/raw/org/pretrain"]),
    "valid_set": ("data_dir shapes", ["--data_dir", "the features/raw/valid"]),
    "test_sets": ("data_dir format", ["--data_dir", "the data/test"]),
    "datadir": ("data_dir fix", ["the data/pretrain", "the data/train", "the data/valid"]),
    "dumpdir": ("data_dir format", ["--out_dir", "the features/raw/org/train"]),
    "expdir": ("package pack", ["--exp", EXP]),
    "nj": ("data_dir format", ["--num_jobs", "3"]),
    "inference_nj": ("avsr_inference", [f"{EXP}/the_decoding/test/logdir.new/levels.4"]),
    "num_threads": ("launch", ["--cmd", "scripts/jobs/local.py --num_threads 2"]),
    "landmarks": ("data_dir format", ["--landmarks", "dlib"]),
    "landmarks_conf": ("data_dir format", ["--landmarks_conf", "every=5"]),
    "allow_broken": ("data_dir combine", ["--allow_broken"]),
    "min_wav_duration": ("data_dir filter", ["--min_seconds", "0.3"]),
    "max_wav_duration": ("data_dir filter", ["--max_seconds", "20"]),
    "min_chars": ("data_dir filter", ["--min_chars", "2"]),
    "max_chars": ("data_dir filter", ["--max_chars", "500"]),
    "babble_utts": ("data_dir babble", ["--num_utts", "7"]),
    "snrs": (
        "avsr_inference",
        ["--noise", "the features/noise/babble.wav", "--snr", "clean", "5"],
    ),
    "modality": ("cache_feats", ["--modality", "audio", "video"]),
    "avsr_tag": ("launch", ["--output_dir", EXP]),
    "avsr_stats_dir": ("launch", ["--train_shape_file", "the shapes/train/duration_shape"]),
    "avsr_config": ("launch", ["--config", "conf/train.yaml"]),
    "avsr_args": ("launch", ["--max_epoch", "3"]),
    "feats_cache": ("launch", ["the cache/valid_video/feats.scp,video_feats,kaldi_ark"]),
    "pretrained_model": ("launch", ["--init_param", "the model.pth:decoder"]),
    "inference_config": ("avsr_inference", ["--config", "conf/the decoding.yaml"]),
    "inference_args": ("avsr_inference", ["--beam_size", "5"]),
    "inference_tag": ("avsr_inference", [f"{EXP}/the_decoding/test/logdir.new/keys.1.scp"]),
    "inference_avsr_model": ("results report", ["--model", "3epoch.pth"]),
    "skip_packing": ("package pack", ["--avsr_model_file", "3epoch.pth"]),
    "skip_upload": ("package upload", ["--packed", f"{EXP}/packed.zip"]),
    "pack_opts": ("package pack", ["--license", "mit"]),
    "hf_repo": ("package upload", ["--repo", "me/a_model"]),
    "upload_dry_run": ("package upload", ["--dry_run", "true"]),
}
SCRIPTS = {
    "local_data_opts": ("data_call", ["--of_the_corpus", "a b", "--data_dir", "the data"]),
    "train_tokenizer": ("tokenizer.sh.arguments", ["the features/raw/pretrain/text"]),
    "nbpe": ("tokenizer.sh.arguments", ["--vocab_size", "99"]),
    "base_models_opts": ("base_models.sh.arguments", ["--of_the_models", "c d"]),
}
# Where the effect of the others is tested
ELSEWHERE = {
    "stage": "test_a_stage_runs_alone_and_again",
    "stop_stage": "test_a_stage_runs_alone_and_again",
    "skip_stages": "test_skipping",
    "skip_data_prep": "test_skipping",
    "skip_train": "test_skipping",
    "skip_eval": "test_skipping",
    "score_opts": "test_scoring_options",
    "ngpu": "test_gpus_and_nodes",
    "num_nodes": "test_gpus_and_nodes",
    "gpu_inference": "test_gpus_and_nodes",
    "avsr_exp": "test_gpus_and_nodes",
    "noise": "test_noise_of_ones_own",
    "views": "test_each_view_is_decoded_by_itself",
    "python": "test_python",
    "download_model": "test_a_trained_model_is_decoded_from_its_directory",
}


def holds(arguments, words):
    """Tell whether the words are among the arguments, one after the other."""
    return any(arguments[i : i + len(words)] == words for i in range(len(arguments)))


@pytest.fixture(scope="module")
def done(shared_recipe):
    """Return the recipe after a run of all stages, with every option that a run can take."""
    shared_recipe.write("local/tokenizer.sh", NOTE)
    shared_recipe.write("local/base_models.sh", NOTE)
    shared_recipe.write("conf/the decoding.yaml", "beam_size: 1\n")
    shared_recipe.write("the model.pth", "model")
    data = (shared_recipe.dir / "local/data.sh").read_text()
    note = "printf '%s\\n' \"$@\" > local/data_call\n"
    shared_recipe.write("local/data.sh", data.replace("data=", note + "data=", 1))
    options = [x for name, value in ALL.items() for x in (f"--{name}", value)]
    run = shared_recipe.run(*options)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    return shared_recipe


@pytest.mark.parametrize("option", EXPECTED)
def test_option_reaches_its_command(done, option):
    module, words = EXPECTED[option]
    assert any(holds(arguments, words) for arguments in done.calls(module))


@pytest.mark.parametrize("option", SCRIPTS)
def test_option_reaches_its_script(done, option):
    file, words = SCRIPTS[option]
    assert holds((done.dir / "local" / file).read_text().splitlines(), words)


def test_nothing_is_written_to_the_default_directories(done):
    assert not [name for name in ("data", "dump", "exp") if (done.dir / name).exists()]


def test_scoring_options(done):
    # An open quote is an error only where it arrives.
    score = ["--stage", "13", "--stop_stage", "13", "--expdir", "the experiments"]
    same = ["--dumpdir", "the features", "--avsr_tag", "the_tag", "--inference_tag", "the_decoding"]
    done = done.run(*score, *same, "--inference_avsr_model", "3epoch.pth", "--score_opts", "'")
    assert done.returncode == 1
    assert "score_opts" in done.stderr


def test_gpus_and_nodes(recipe):
    recipe.write("back_end", BACK_END)
    assert recipe.run("--stop_stage", "10").returncode == 0
    told = ["--ngpu", "2", "--num_nodes", "2", "--gpu_inference", "true", "--avsr_exp", "exp/mine"]
    done = recipe.run(
        "--stage", "11", "--stop_stage", "12", *told, cmd_backend="kaldi", KALDI_CMD="./back_end"
    )
    assert done.returncode == 0, done.stderr
    (launch,) = recipe.calls("launch")
    assert holds(launch, ["--ngpu", "2", "--num_nodes", "2"])
    assert holds(launch, ["--output_dir", "exp/mine"])
    assert all(holds(call, ["--ngpu", "1"]) for call in recipe.calls("avsr_inference"))
    assert "--gpu 1 JOB=1:2 exp/mine/" in (recipe.dir / "back_end_calls").read_text()


def test_noise_of_ones_own(recipe):
    recipe.write("mine.wav", "noise")
    recipe.write(
        "conf/train.yaml",
        "audio_frontend: whisper\nvideo_frontend: null\n"
        "preprocessor_conf:\n  noise:\n    file: dump/noise/babble.wav\n",
    )
    done = recipe.run("--noise", "mine.wav", "--snrs", "0", "--stop_stage", "12")
    assert done.returncode == 0, done.stderr
    assert recipe.calls("data_dir babble") == []
    (launch,) = recipe.calls("launch")
    assert holds(launch, ["--preprocessor_conf", "noise.file=mine.wav"])
    assert holds(recipe.calls("avsr_inference")[0], ["--noise", "mine.wav", "--snr", "0"])


def test_each_view_is_decoded_by_itself(recipe):
    views = "asr:4 vsr:5 avsr:16,5 vsr"
    done = recipe.run("--views", views, "--snrs", "clean 0", "--stop_stage", "13")
    assert done.returncode == 0, done.stderr
    expected = {
        "asr_a4": (["--task", "asr"], ["--rates", "audio=4"], {"speech"}),
        "vsr_v5": (["--task", "vsr"], ["--rates", "video=5"], {"video"}),
        "avsr_a16_v5": (["--task", "avsr"], ["--rates", "audio=16,video=5"], {"speech", "video"}),
        "vsr": (["--task", "vsr"], [], {"video"}),
    }
    calls = recipe.calls("avsr_inference")
    for tag, (task, rates, names) in expected.items():
        own = [c for c in calls if any(f"_{tag}/test" in word for word in c)]
        assert len(own) == 2  # jobs
        noisy = [c for c in own if holds(c, ["--snr", "clean", "0"])]
        assert len(noisy) == ("speech" in names) * 2
        for call in own:
            assert holds(call, task) and holds(call, rates)
            assert ("--rates" in call) == bool(rates)
            data = [w.split(",")[1] for w in call if w.startswith("dump/raw/test/") and "," in w]
            assert set(data) == names
        results = list(recipe.dir.glob(f"exp/*/*_{tag}/test*/score_wer/result.txt"))
        assert len(results) == 1 + bool(noisy)


def test_python(recipe):
    shutil.copytree(recipe.dir / "env", recipe.dir / "another")
    recipe.write("local/data.sh", NOTE + '. ./path.sh\necho "${SMOP_PYTHON}" > local/its_python\n')
    done = recipe.run("--python", "./another/bin/python", "--stop_stage", "1")
    assert "has not written data/train/text" in done.stderr
    assert (recipe.dir / "local/its_python").read_text() == f"{recipe.dir}/./another/bin/python\n"


def test_every_option_is_tested(recipe):
    shown = recipe.run("--help").stdout
    options = re.findall(r"^ +--([a-z_]+)", shown, flags=re.MULTILINE)
    tested = EXPECTED.keys() | SCRIPTS.keys() | ELSEWHERE.keys()
    assert sorted(tested) == sorted(options)
    assert ALL.keys() <= tested
