import shutil

import pytest
import torch
import yaml

from espnet_smop.base_model import BaseModelError
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.defaults import default_options
from espnet_smop.train.lock import ExperimentInUseError
from espnet_smop.train.resume import ChangedConfigError, check_resumed_config


def check(args):
    check_resumed_config(args, default_options(args))


@pytest.fixture
def experiment(tmp_path):
    """A function that makes the arguments of a training in an experiment's directory."""
    directory = tmp_path / "an exp"
    directory.mkdir()
    (directory / "1epoch.pth").touch()

    def arguments(**changes):
        args = AVSRTask.get_parser().parse_args(["--output_dir", str(directory)])
        args.decoder_conf = {**args.decoder_conf, "model": "llm"}
        args.optim_conf = {"lr": 1e-3}
        for name, value in changes.items():
            old = getattr(args, name)
            setattr(args, name, {**old, **value} if isinstance(value, dict) else value)
        return args

    def write(**changes):
        config = vars(arguments(**changes))
        (directory / "config.yaml").write_text(yaml.safe_dump({**config, "version": "1"}))

    arguments.write = write
    arguments.directory = directory
    return arguments


def test_the_same_settings_on_another_machine_are_accepted(experiment):
    # The task fills in the prompt and the fingerprints
    experiment.write(decoder_conf={"prompt": "Transcribe."}, base_fingerprints={"a": "b"})
    check(experiment(ngpu=4, num_workers=7, log_level="DEBUG", dist_world_size=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector_conf": {"routing": "jejr"}}, "projector_conf.routing is jejr, was dedr"),
        ({"projector": "mlp"}, "projector is mlp, was smop"),
        ({"decoder_conf": {"lora": {"r": 8}}}, r"decoder_conf\.lora\.r is 8, was 64"),
        ({"video_frontend": None}, "video_frontend is None, was avhubert"),
        ({"decoder_conf": {"prompt": "Write."}}, r"decoder_conf\.prompt is Write\."),
    ],
)
def test_another_model_is_refused_whatever_is_allowed(experiment, changes, message):
    experiment.write(projector_conf={"routing": "dedr"})
    defaults = {"projector_conf": {"routing": "dedr"}, "allow_changed_config": True}
    with pytest.raises(ChangedConfigError, match=f"another model: .*{message}.*--avsr_tag"):
        check(experiment(**{**defaults, **changes}))


STATED = {
    "projector_conf": {"routing": "dedr", "top_k": 2, "downsample": {"mode": "stack", "audio": 3}},
    "decoder_conf": {"lora": {"r": 64, "dropout": 0.0}, "train_delimiters": True, "dtype": None},
    "optim_conf": {"betas": [0.9, 0.999]},
    "preprocessor_conf": {"flip_probability": 0.5, "speech_mask": {"max_width": 0.4}},
    "model_conf": {"ctc_warmup_steps": 0},
}


def test_a_default_that_is_now_stated_or_left_out_is_no_change(experiment):
    experiment.write(projector_conf={"routing": "dedr"}, optim="adamw", optim_conf={})
    check(experiment(optim="adamw", **STATED))
    experiment.write(optim="adamw", **STATED)
    check(experiment(projector_conf={"routing": "dedr"}, optim="adamw"))
    with pytest.raises(ChangedConfigError) as error:
        check(experiment(projector_conf={"routing": "dedr", "top_k": 1}, optim="adamw"))
    assert ": projector_conf.top_k is 1, was 2. Train" in str(error.value)


def test_other_settings_need_permission(experiment, caplog):
    experiment.write()
    changes = {"optim_conf": {"lr": 5e-4}, "max_epoch": 7, "decoder_conf": {"model": "moved/llm"}}
    with pytest.raises(ChangedConfigError, match="--allow_changed_config true") as error:
        check(experiment(**changes))
    rows = [line.split() for line in str(error.value).splitlines()[1:]]
    assert rows[0] == ["setting", "before", "now"]
    assert ["optim_conf.lr", "0.001", "0.0005"] in rows
    assert ["decoder_conf.model", "llm", "moved/llm"] in rows
    check(experiment(**changes, allow_changed_config=True))
    assert "optim_conf.lr" in caplog.text


def test_without_a_checkpoint_nothing_is_compared(experiment):
    experiment.write()
    (experiment.directory / "1epoch.pth").unlink()
    check(experiment(projector="mlp"))


def test_a_batch_kept_of_an_aborted_training_is_no_checkpoint(experiment):
    experiment.write()
    (experiment.directory / "1epoch.pth").rename(experiment.directory / "nonfinite_batch.pth")
    check(experiment(optim_conf={"lr": 5e-4}))


def test_more_gpus_and_other_kernels_are_the_same_training(experiment):
    experiment.write(decoder_conf={"dtype": "float32"})
    args = experiment(decoder_conf={"dtype": "bfloat16"}, init_param=["imported.pth"])
    args.distributed = True
    config = experiment.directory / "config.yaml"
    config.write_text(config.read_text() + "distributed: false\n")
    args.allow_changed_config = True  # for the dtype
    check(args)
    with pytest.raises(ChangedConfigError) as error:
        check(experiment(decoder_conf={"dtype": "bfloat16"}))
    assert "decoder_conf.dtype" in str(error.value) and "distributed" not in str(error.value)


def test_an_imported_model_is_trained_further_elsewhere(experiment):
    experiment.write()
    (experiment.directory / "1epoch.pth").rename(experiment.directory / "imported.pth")
    with pytest.raises(ChangedConfigError, match=r"--init_param .*an exp/imported\.pth"):
        check(experiment())


@pytest.mark.parametrize("how", ["locked", "another model", "another LLM", "another tokenizer"])
def test_a_refused_training_leaves_the_experiment_as_it_was(
    train_command, model_args, exchange, tmp_path, how
):
    args = model_args().decoder_conf
    llm = shutil.copytree(args["model"], tmp_path / "llm")
    conf = {"decoder_conf": {**args, "model": str(llm)}}
    AVSRTask.main(cmd=train_command("exp", max_epoch=1, **conf))
    directory = tmp_path / "exp"
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    if how == "locked":
        import subprocess
        import sys

        hold = (
            "import sys, time; from espnet_smop.train.lock import experiment_lock\n"
            "with experiment_lock(sys.argv[1]):\n    print(flush=True)\n    time.sleep(60)"
        )
        holder = subprocess.Popen([sys.executable, "-c", hold, directory], stdout=subprocess.PIPE)
        holder.stdout.readline()
        with pytest.raises(ExperimentInUseError):
            AVSRTask.main(cmd=train_command("exp", max_epoch=2, **conf))
        holder.kill()
        holder.wait()
        holder.stdout.close()
    elif how == "another model":
        with pytest.raises(ChangedConfigError):
            AVSRTask.main(cmd=train_command("exp", projector_conf={"num_experts": 5}, **conf))
    else:
        part = exchange[how.removeprefix("another ")](llm)
        command = train_command("exp", max_epoch=1, **conf)
        with pytest.raises(BaseModelError, match=rf"base models differ.*{part} \(exp"):
            AVSRTask.main(cmd=command)
    after = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    after.pop(directory / ".lock")
    before.pop(directory / ".lock")
    assert after == before
    assert torch.load(directory / "1epoch.pth", weights_only=True)
