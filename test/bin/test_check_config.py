"""Ordinary mistakes: each is named in one line, before anything is loaded or written."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import espnet_smop.experiments.check  # noqa: F401 (the command imports it when it is called)
from espnet_smop.bin import avsr_inference, avsr_train, check_config
from espnet_smop.command import run
from espnet_smop.corpus import landmarks
from espnet_smop.fileio.video import write_video
from espnet_smop.inference import DECODING_OPTIONS
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.lock import experiment_lock, lock_holder


@pytest.fixture
def command(train_command, model_args):
    """Return a function from changes of a right config to the arguments of a training."""

    def command(changes):
        changes = dict(changes)
        # Changes of these are beside the base models.
        for part in ("audio_frontend_conf", "decoder_conf"):
            if part in changes:
                changes[part] = {**getattr(model_args(), part), **changes[part]}
        return train_command("exp", **{**GOOD, **changes})

    return command


@pytest.fixture
def check(command, capsys):
    """Return a function from changes of a config, and arguments, to the lines of the check."""

    def check(changes=None, *words):
        cmd = [*command(changes or {}), *map(str, words)]
        capsys.readouterr()  # what making the base models printed
        status = check_config.main(cmd)
        out, err = capsys.readouterr()
        assert status == (0 if out else 1)
        return (err or out).splitlines()

    return check


GOOD = {
    "scheduler": "cosineannealingwarmuprestarts",
    "scheduler_conf": {"first_cycle_steps": 100, "warmup_steps": 5, "max_lr": 0.001},
    "grad_clip": 10,
}


def smop(**conf):
    return {"projector_conf": {"hidden_size": 16, **conf}}


def schedule(**conf):
    return {"scheduler_conf": {**GOOD["scheduler_conf"], **conf}}


NAN, INF = float("nan"), float("inf")
MISTAKES = {
    "lr as YAML reads it": (
        {"optim_conf": {"lr": "1e-3"}}, [],
        "optim_conf.lr is the string '1e-3' to YAML, expected a number: write 1.0e-3$",
    ),
    "max_lr as YAML reads it": (
        schedule(max_lr="2e4"), [], "scheduler_conf.max_lr is the string '2e4' to YAML, expected a "
        "number: write 2.0e.4",
    ),
    "weight in quotes": (
        smop(load_balancing_weight="0.01"), [],
        "projector_conf.load_balancing_weight is the string '0.01', expected a number: write it "
        "without quotes",
    ),
    "optimizer": ({"optim": "adamv"}, [], "optim is 'adamv' .*Did you mean 'adam"),
    "key of the optimizer": (
        {"optim_conf": {"learning_rate": 0.1}}, [],
        "optim_conf has an unknown key 'learning_rate'. Known: ",
    ),
    "closest key of the optimizer": (
        {"optim_conf": {"weight_deacy": 0.1}}, [], "'weight_deacy'. Did you mean 'weight_decay'",
    ),
    "value of the optimizer": (
        {"optim_conf": {"lr": -1.0}}, [], "optim_conf does not suit adamw: Invalid learning rate",
    ),
    "key of the schedule": (
        schedule(warmup=3), [], "scheduler_conf has an unknown key 'warmup'. Did you mean 'warm",
    ),
    "missing key of the schedule": (
        {"scheduler_conf": {}}, [], "scheduler_conf lacks a key: 'first_cycle_steps'",
    ),
    "warmup longer than the cycle": (
        schedule(warmup_steps=200), [], "scheduler_conf does not suit cosine.*warmup_steps 200",
    ),
    "key of the config": (
        {"max_epochs": 3}, [], "unrecognized arguments: max_epochs .*Did you mean 'max_epoch'",
    ),
    "option": ({}, ["--max_epochs", "3"], "unrecognized arguments: --max_epochs 3. Did you mean "),
    "batch_type": (
        {"batch_type": "tokns"}, [], "batch_type is 'tokns' .*Did you mean 'tokens'",
    ),
    "batch_limits": ({"batch_limits": {"frame": 9}}, [], "batch_limits has an unknown key 'frame'"),
    "whole number": ({"max_epoch": 2.5}, [], "max_epoch is 2.5 .* expected a whole number"),
    "no settings": ({"optim_conf": 0.1}, [], "optim_conf is 0.1 .*settings of the form"),
    "init_param": (
        {}, ["--init_param", "exp/absent.pth"], "--init_param exp/absent.pth: there is no such",
    ),
    "projector": ({"projector": "smopp"}, [], "unknown class 'smopp': .*Did you mean 'smop'"),
    "class path": (
        {"projector": "no_module:Projector"}, [], "there is no module 'no_module'",
    ),
    "key of the projector": (
        smop(routng="jejr"), [], "projector_conf has an unknown key 'routng'. Did you mean 'routi",
    ),
    "routing": (smop(routing="jejx"), [], "routing is 'jejx', expected one of: jejr, jedr, dedr"),
    "experts": (smop(top_k=5), [], "top_k is 5, but there are 3 experts"),
    "one expert": (smop(num_experts=1, top_k=2), [], "num_experts is 1, but top_k is 2"),
    "hidden size": (smop(hidden_size=0), [], "hidden_size is 0, expected a whole number"),
    "rate": (smop(downsample={"audio": 0}), [], "downsample.audio is 0, expected a whole"),
    "fusion": (smop(fusion={"audio": "dic"}), [], "fusion.audio is 'dic', expected one of"),
    "dropout": (smop(dropout=2), [], "dropout probability has to be between 0 and 1"),
    "no frontend": (
        {"audio_frontend": None, "video_frontend": None}, [], "set audio_frontend .whisper., video",
    ),
    "flip": (
        {"preprocessor_conf": {"flip_probabilty": 0.5}}, [], "Did you mean 'flip_probability'",
    ),
    "noise": (
        {"preprocessor_conf": {"noise": {"file": "absent.wav", "snr": 0}}}, [],
        "preprocessor_conf.noise: there is no file absent.wav",
    ),
    "unknown key of the noise": (
        {"preprocessor_conf": {"noise": {"file": "a.wav", "snrs": 0}}}, [],
        "preprocessor_conf.noise has an unknown key 'snrs'. Did you mean 'snr'",
    ),
    "mask": (
        {"preprocessor_conf": {"video_mask": {"width": 1.0}}}, [],
        "preprocessor_conf: video_mask is .* expected {max_width: …, stride: …}",
    ),
    "video_multiple": (
        {"preprocessor_conf": {"video_multiple": 0}}, [], "video_multiple is 0, expected 1 or more",
    ),
    "flip probability": (
        {"preprocessor_conf": {"flip_probability": 2}}, [], "flip_probability is 2, expected 0 to",
    ),
    "prompt": ({"decoder_conf": {"prompt": 3}}, [], "prompt is 3, expected a string, one for"),
    "lora": ({"decoder_conf": {"lora": {"rank": 3}}}, [], r"lora: unknown settings .'rank'"),
    "lora's modules": (
        {"decoder_conf": {"lora": {"r": 2, "target_modules": ["qproj"]}}}, [], "qproj",
    ),
    "dtype": ({"decoder_conf": {"dtype": "float8"}}, [], "dtype: 'float8' is none of float32, bf"),
    "padding": ({"audio_frontend_conf": {"padding": "30"}}, [], "padding is the string '30'"),
    "criterion": (
        {"best_model_criterion": [["valid", "accuracy", "max"]]}, [],
        "best_model_criterion has an unknown statistic 'accuracy'. Known: acc, loss",
    ),
    "criterion's part": (
        {"best_model_criterion": [["dev", "acc", "max"]]}, [], "has 'dev', expected train or valid",
    ),
    "accum_grad": ({"accum_grad": 0}, [], "accum_grad is 0, expected at least 1"),
    "epochs": ({"max_epoch": "ten"}, [], "--max_epoch: invalid int value: 'ten'"),
    "decoding in the config": (
        {"inference_conf": {"beamsize": 3}}, [], "inference_conf: decoding has no setting 'beamsi",
    ),
    "beam size in the config": ({"inference_conf": {"beam_size": 0}}, [], "beam_size is 0"),
    "frozen part": ({}, ["--freeze_param", "projectr"], "Did you mean 'projector'"),
    "base": ({"base": "absent.yaml"}, [], "absent.yaml, the base of .*, does not exist"),
    "lr that is infinite": ({"optim_conf": {"lr": INF}}, [], "optim_conf.lr is inf, expected"),
    "lr that is NaN": ({"optim_conf": {"lr": NAN}}, [], "optim_conf.lr is nan, expected a finite"),
    "weight that is NaN": (
        smop(load_balancing_weight=NAN), [], "load_balancing_weight is nan, expected a finite",
    ),
    "weight below 0": (
        smop(load_balancing_weight=-1.0), [], "load_balancing_weight is -1.0, expected a number of",
    ),
    "clipping at NaN": ({"grad_clip": NAN}, [], "grad_clip is nan, expected a finite number"),
    "clipping below 0": ({"grad_clip": -1}, [], "grad_clip is -1, expected a number above 0"),
    "peak that is NaN": (schedule(max_lr=NAN), [], "scheduler_conf.max_lr is nan, expected a fin"),
    "steps below 0": (schedule(warmup_steps=-5), [], "warmup_steps is -5, expected at least 0"),
    "decoding that is NaN": (
        {"inference_conf": {"length_penalty": NAN}}, [], "inference_conf.length_penalty is nan, ",
    ),
    "adapters that are NaN": (
        {"decoder_conf": {"lora": {"r": 2, "alpha": NAN}}}, [], "decoder_conf.lora.alpha is nan, ",
    ),
    "mask in words": (
        {"preprocessor_conf": {"video_mask": {"max_width": "wide", "stride": 1.0}}}, [],
        "video_mask is .* with numbers above 0",
    ),
    "mask below 0": (
        {"preprocessor_conf": {"speech_mask": {"max_width": -0.4, "stride": 1.0}}}, [],
        "speech_mask is .* with numbers above 0",
    ),
    "copies as a number": (
        {"preprocessor_conf": {"feats_copies": 3}}, [], "feats_copies is 3, expected {audio|video",
    ),
    "limit below 1": ({"batch_limits": {"frames": -1}}, [], "frames is -1, expected a number"),
    "limit as a list": ({"batch_limits": {"text": [3]}}, [], r"text is \[3\], expected a"),
    "seed below 0": ({"seed": -1}, [], "seed is -1, expected 0 to 4294967295"),
    "seed above all": ({"seed": 2**70}, [], "seed is .*, expected 0 to 4294967295"),
    "GPUs below 0": ({"ngpu": -1}, [], "ngpu is -1, expected at least 0"),
    "epochs kept": ({"keep_nbest_models": -1}, [], "keep_nbest_models is -1, expected at least 0"),
    "epochs kept in words": (
        {"keep_nbest_models": ["x"]}, [], "keep_nbest_models is .*expected a list of whole numbers",
    ),
    "patience as a list": ({"patience": [3]}, [], "patience is .*, expected a whole number"),
    "a switch as a number": ({"use_amp": 2}, [], "use_amp is 2 .*, expected true or false"),
    "frozen part as a text": ({"freeze_param": "x"}, [], "freeze_param is 'x' .*expected a list"),
    "frozen part as a number": ({"freeze_param": [3]}, [], "freeze_param is .*a list of strings"),
    "init_param as a number": ({"init_param": 3}, [], "init_param is 3 .*, expected a list"),
    "file as a number": ({"ignore_init_mismatch": [1]}, [], "ignore_init_mismatch is .*true or f"),
    "sources as a text": (
        {"train_data_path_and_name_and_type": "x"}, [], "_type is 'x' .*, expected a list",
    ),
    "sources of two words": (
        {"train_data_path_and_name_and_type": [["a", "b"]]}, [], r"a list of \[FILE, NAME, T",
    ),
    "shapes as a number": ({"train_shape_file": 3}, [], "train_shape_file is 3 .*a list"),
    "projector as a number": ({"projector": 3}, [], "projector is 3 .*the name of a class"),
    "projector as a list": ({"projector": ["smop"]}, [], "projector is .*the name of a class"),
    "no projector": ({"projector": None}, [], "projector is None .*, expected the name of a class"),
    "no decoder": ({"decoder": None}, [], "decoder is None .*, expected the name of a class"),
    "frontend as a switch": (
        {"audio_frontend": True}, [], "audio_frontend is True .*, expected the name of a class",
    ),
    "no preprocessor": ({"preprocessor": None}, [], "preprocessor is None .*the name of a"),
    "experts in words": (
        smop(num_experts={"audio": "x", "video": 3}), [], "num_experts.* is 'x', expected a whole",
    ),
    "one expert in each pool": (
        smop(num_experts={"audio": 1, "video": 1}, top_k=2), [], "num_experts is 1, but top_k is 2",
    ),
    "a switch as a text": (
        smop(normalize_top_k="false"), [],
        "projector_conf.normalize_top_k is 'false', expected true or false",
    ),
    "a number as a word": (
        smop(load_balancing_weight="low"), [], "load_balancing_weight is 'low', expected a number",
    ),
    "model as a number": ({"decoder_conf": {"model": 3}}, [], "decoder_conf.model is 3, expec"),
    "warm start's steps": ({"model_conf": {"ctc_warmup_steps": -1}}, [], "is -1, expected 0 or"),
    "warm start": ({"model_conf": {"ctc_warmup": 3}}, [], "Did you mean 'ctc_warmup_steps'"),
    "data name": (
        {}, ["--train_data_path_and_name_and_type", "x/wav.scp,speach,sound"],
        "data name 'speach' of x/wav.scp is none of .*speech",
    ),
    "data file": (
        {}, ["--train_data_path_and_name_and_type", "x/wav.scp,speech_feats,kaldi_ark"],
        "speech_feats.* give it to both",
    ),
    "noise without file": (
        {"preprocessor_conf": {"noise": {"snr": [0]}}}, [],
        "preprocessor_conf.noise lacks a key: 'file'",
    ),
    "within another class of this package": (
        {"audio_frontend": "espnet_smop.checkpoint.llama_smop.frontends:PublicWhisperFrontend",
         **smop(routing="jejx")}, [], "routing is 'jejx'",
    ),
    "GPUs": ({}, ["--ngpu", "99"], "--ngpu 99, but only .* GPUs are visible"),
    "stage": ({}, ["--stages", "3-x"], "'3-x' is neither a stage nor a range"),
    "data directory": ({}, ["--data_dirs", "dump/absent"], "dump/absent does not exist"),
    "landmarks": (
        {}, ["--stages", "3", "--landmarks", "dlb"], "unknown landmark provider 'dlb'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(check, name, capsys):
    changes, words, expected = MISTAKES[name]
    start = time.process_time()
    try:
        lines = check(changes, *words)
    except SystemExit:  # of the command's own options
        lines = capsys.readouterr().err.splitlines()[:1]
    assert time.process_time() - start < 5
    assert [line for line in lines if re.search(expected, line)]
    assert len(lines) == (2 if name.startswith("data") and name != "data directory" else 1)


def test_a_right_config_is_one_line_and_leaves_nothing(check, tmp_path):
    config = tmp_path / "decode.yaml"
    config.write_text("beam_size: 2\nbatch_size: 4\n")
    [line] = check({}, "--inference_config", config, "--stages", "1-12")
    assert line.endswith("exp.yaml: no problem found")
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        ("beam_size: 0\n", [], "beam_size is 0, expected a whole number of at least 1"),
        ("beamsize: 3\n", [], "has an unknown key 'beamsize'. Did you mean 'beam_size'"),
        ("beam_size: 2\nnbest: 3\n", [], "nbest is 3, but must be between 1 and beam_size 2"),
        ("beam_size: 2\n", ["--inference_args", "--beam_size 0"], "beam_size is 0"),
        ("length_penalty: 1e-1\n", [], "length_penalty is the string '1e-1' to YAML"),
        ("- 3\n", [], "is not a mapping of settings"),
        ("beam_size: 2\nbeam_size: 3\n", [], "duplicate key 'beam_size'"),
        ("length_penalty: .nan\n", [], "length_penalty is nan, expected a finite number"),
        ("length_penalty: -.inf\n", [], "length_penalty is -inf, expected a finite number"),
    ],
)
def test_the_decoding_config_is_checked(check, tmp_path, content, words, expected):
    config = tmp_path / "decode.yaml"
    config.write_text(content)
    [line] = check({}, "--inference_config", config, *words)
    assert expected in line


def test_a_decoding_config_may_set_options_of_decoding():
    known = {action.dest for action in avsr_inference.get_parser()._actions}
    assert set(DECODING_OPTIONS) <= known


@pytest.mark.parametrize(
    ("part", "model", "expected"),
    [
        ("decoder", "~/absent/llama", "'~/absent/llama' is not a directory"),
        ("decoder", "WHISPER", "is a whisper model, not a causal LM"),
        ("decoder", "AVHUBERT", "is a avhubert model, not a causal LM"),
        ("audio_frontend", "LLM", "is a llama model, not Whisper"),
        ("video_frontend", "LLM", "config.json is of another kind of model"),
        ("video_frontend", "FAIRSEQ", "convert_base_model avhubert --checkpoint"),
        ("video_frontend", "EMPTY", "there is no config.json in"),
        ("decoder", "NO_WEIGHTS", "there are no weights"),
        ("decoder", "meta-llama/Llama-3.2-1B", "gated"),
        ("decoder", "downloads/llm", "there is no directory 'downloads/llm': stage 6 makes it"),
    ],
)
def test_base_models_are_looked_for(
    check, model_args, tmp_path, monkeypatch, part, model, expected
):
    monkeypatch.setattr(
        "huggingface_hub.HfApi.auth_check",
        lambda *_, **__: (_ for _ in ()).throw(OSError("no net")),
    )
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.pt").write_bytes(b"x")
    args = model_args()
    bare = tmp_path / "bare"
    bare.mkdir()
    llm = Path(args.decoder_conf["model"])
    for file in llm.glob("*.json"):
        (bare / file.name).write_bytes(file.read_bytes())
    names = {
        "WHISPER": args.audio_frontend_conf["model"], "AVHUBERT": args.video_frontend_conf["model"],
        "LLM": llm, "FAIRSEQ": tmp_path / "model.pt", "EMPTY": tmp_path / "empty",
        "NO_WEIGHTS": bare,
    }  # fmt: skip
    [line] = check({f"{part}_conf": {"model": str(names.get(model, model))}})
    assert expected in line


def test_a_tokenizer_may_be_in_another_directory_than_the_llm(check, model_args, tmp_path):
    llm = Path(model_args().decoder_conf["model"])
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(llm / name)
    [line] = check({"decoder_conf": {"model": str(tmp_path), "tokenizer": str(llm)}})
    assert line.endswith("no problem found")


def test_what_was_not_built_is_said(check, tmp_path, monkeypatch):
    (tmp_path / "own_frontend.py").write_text(
        "from espnet_smop.frontend.whisper import WhisperFrontend\n"
        "class Own(WhisperFrontend):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"its own format")
    changes = {"audio_frontend_conf": {"model": str(tmp_path)}}
    [line] = check({"audio_frontend": "own_frontend:Own", **changes})
    expected = "no problem found; the model was not built, because of audio_frontend: own_frontend:"
    assert expected in line


def test_what_stage_6_makes_need_not_be_there(check):
    changes = {"decoder_conf": {"model": "exp/base/llm"}, **smop(routing="jejx")}
    [line] = check(changes, "--stages", "1-12")
    assert "routing is 'jejx'" in line
    assert "exp/base/llm" in " ".join(check(changes, "--stages", "11"))


def test_the_experiments_directory_is_compared_and_left_alone(check, tmp_path):
    exp = tmp_path / "exp"
    exp.mkdir()
    check_settings = {"projector_conf": {"routing": "jejr", "num_experts": 3}, "max_epoch": 9}
    (exp / "config.yaml").write_text(yaml.safe_dump(check_settings))
    torch.save({}, exp / "1epoch.pth")
    before = {file: file.read_bytes() for file in exp.iterdir()}
    lines = check({**smop(routing="dedr"), "max_epoch": 9})
    assert "holds the training of another model: projector_conf.hidden_size is 16" in lines[0]
    assert before == {file: file.read_bytes() for file in exp.iterdir()}


def test_a_missing_face_detector_is_said(check, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("text", "video.scp"):
        (data / name).write_text("a x\n")
    monkeypatch.setattr(landmarks.importlib.util, "find_spec", lambda name: None)
    [line] = check({}, "--stages", "3", "--data_dirs", data)
    assert "dlib-bin" in line
    (data / "landmarks.scp").write_text("a a.npy\n")
    assert "no problem" in check({}, "--stages", "3", "--data_dirs", data)[0]
    assert "dlib-bin" in check({}, "--stages", "3", "--landmarks", "dlib")[0]


def test_audio_at_another_rate_is_named(check, dump_dir, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 44100)
    write_video(tmp_path / "a.mkv", np.zeros((5, 240, 320), np.uint8))
    for name, value in (("text", "x"), ("wav.scp", "a.wav"), ("video.scp", "a.mkv")):
        (tmp_path / name).write_text(f"a {tmp_path / value}\n")
    lines = check({}, "--data_dirs", dump_dir, tmp_path)
    assert "a.wav is at 44100 Hz, expected 16000" in lines[0]
    assert "a.mkv: video frames of 320x240 pixels are whole pictures" in lines[1]
    assert len(lines) == 2


def test_a_lock_is_seen_without_taking_it(tmp_path):
    assert lock_holder(tmp_path) is None
    assert not list(tmp_path.iterdir())
    with experiment_lock(tmp_path):
        pass
    assert lock_holder(tmp_path) is None


HOLD = """
import sys, time
from espnet_smop.train.lock import experiment_lock
with experiment_lock(sys.argv[1]):
    print(flush=True)
    time.sleep(600)
"""


def test_a_training_in_the_same_directory_is_named(check, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "exp")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    holder.stdout.readline()
    before = state(tmp_path / "exp")
    try:
        [line] = check()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert re.search(rf"exp: process {holder.pid} on .* trains here; wait .* --avsr_tag", line)
    assert state(tmp_path / "exp") == before


def state(directory):
    return {p: p.stat().st_mtime_ns for p in directory.rglob("*")}


@pytest.fixture
def trained(model_args, tmp_path):
    """Return the directory of an experiment."""
    exp = tmp_path / "an exp"
    exp.mkdir()
    (exp / "config.yaml").write_text(yaml.safe_dump(vars(model_args())))
    return exp


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (
            ["--inference_args", "--beam_size 0"],
            "decode.yaml with --inference_args: beam_size is 0",
        ),
        (["--inference_args", "--baem_size 2"], "^--inference_args has an unknown key 'baem_size'"),
        (["--inference_args", "--ngpu 99"], "are visible. .* or decode on the CPU with --ngpu 0"),
        (["--data_dirs", "dump/typo"], "data directory dump/typo does not exist"),
    ],
)
def test_a_decoding_alone_is_checked(trained, dump_dir, tmp_path, capsys, words, expected):
    config = tmp_path / "decode.yaml"
    config.write_text("beam_size: 2\n")
    cmd = ["--stages", "12 13", "--exp_dir", trained, "--inference_config", config]
    cmd += ["--data_dirs", dump_dir] if "--data_dirs" not in words else []
    status = check_config.main([str(word) for word in (*cmd, *words)])
    out, err = capsys.readouterr()
    if expected is None:
        assert status == 0 and out == f"{trained}: no problem found\n"
    else:
        assert status == 1 and re.search(expected, err) and len(err.splitlines()) == 1


def test_a_base_model_that_decoding_lacks_is_named(trained, capsys):
    config = trained / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["decoder_conf"]["model"] = "exp/base/gone"
    config.write_text(yaml.safe_dump(settings))
    assert check_config.main(["--stages", "12", "--exp_dir", str(trained)]) == 1
    assert "decoder_conf.model: base model 'exp/base/gone' is not a dir" in capsys.readouterr().err


def test_little_disk_for_the_features_is_named(tmp_path, monkeypatch, capsys):
    data, dump = tmp_path / "data", tmp_path / "dump"
    data.mkdir()
    (data / "text").write_text(f"a {'x' * 3000}\n")
    (data / "wav.scp").write_text("a a.wav\n")
    command = ["--stages", "3", "--data_dirs", str(data), "--dump_dir", str(dump)]
    usage = type("Usage", (), {"free": 2_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert check_config.main(command) == 1
    assert "GiB free, the features need at least" in capsys.readouterr().err
    dump.mkdir()
    (dump / "made.flac").write_bytes(bytes(1_500_000))  # the rest fits
    assert check_config.main(command) == 0


def test_nothing_to_check_is_an_error():
    with pytest.raises(ValueError, match="give --config"):
        check_config.main(["--stages", "12"])


def test_little_disk_is_named(check, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    [line] = check()
    assert "GiB free, the checkpoints need" in line


@pytest.mark.parametrize(
    "name",
    ["lr as YAML reads it", "key of the schedule", "batch_type", "init_param", "routing", "prompt",
     "one expert", "beam size in the config", "option", "frozen part", "mask"],
)  # fmt: skip
def test_training_ends_in_the_same_line(command, tmp_path, name, capsys, monkeypatch):
    monkeypatch.setattr(AVSRTask, "build_model", lambda args: pytest.fail("loaded the model"))
    changes, words, expected = MISTAKES[name]
    cmd = [*command(changes), *words]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(avsr_train.main, cmd)
    out, err = capsys.readouterr()
    said = stopped.value.code if isinstance(stopped.value.code, str) else err
    assert re.search(expected, said)
    assert len(said.splitlines()) == 1 and "Traceback" not in err and not out
    assert not (tmp_path / "exp").exists()


def test_training_without_directory_says_so_in_one_line(command):
    words = command({})
    at = words.index("--output_dir")
    with pytest.raises(SystemExit, match="^avsr_train: the argument --output_dir is required$"):
        run(avsr_train.main, words[:at] + words[at + 2 :])
