"""A recipe in a directory of its own, with a Python that notes what it is asked to do."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from transformers import WhisperConfig, WhisperModel

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs2" / "TEMPLATE" / "avsr_smop1"
LINKED = ["avsr_smop.sh", "path.sh", "cmd.sh", "db.sh", "scripts"]

FAKE_PYTHON = f"""#!{sys.executable}
import json, os, runpy, shutil, sys, time
from pathlib import Path

here = Path(__file__).resolve().parent.parent
REAL = (
    "config base_models", "config modalities", "config show", "results merge", "results score",
    "results table",
)
if sys.argv[1] == "-c" and "espnet2" in sys.argv[2]:
    sys.exit(print("fits"))  # path.sh asks whether ESPnet is there
module, args = sys.argv[2].split(".")[-1], sys.argv[3:]
if module in ("config", "data_dir", "package", "prepare_corpus", "results"):
    module += " " + args.pop(0)  # the subcommand
if sys.argv[1] != "-m" or module in REAL:
    os.environ["PYTHONPATH"] = {str(ROOT)!r}
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
with open(here / "calls", "a") as f:
    f.write(json.dumps([module, args]) + "\\n")
while (here / f"hold {{module}}").exists():
    time.sleep(0.05)
if (here / f"fail {{module}}").exists():
    sys.exit(f"{{module}} failed as it was told to")

def value(name, default=None):
    return Path(args[args.index(name) + 1]) if name in args else default

if module in ("data_dir combine", "data_dir filter"):
    source, out = value("--data_dir") or value("--in_dir"), value("--out_dir")
    out.mkdir(parents=True, exist_ok=True)
    for name in ("text", "utt2spk"):
        shutil.copy(source / name, out / name)
    (out / "wav.scp").write_text("x\\n")
    if not (here / "only audio").exists():
        (out / "video.scp").write_text("x\\n")
elif module == "data_dir babble":
    value("--out").write_text("noise")
elif module == "data_dir shapes":
    value("--out_dir").mkdir(parents=True, exist_ok=True)
    (value("--out_dir") / "duration_shape").write_text("u 1\\n")
elif module == "cache_feats":
    told = here / "cache_report"
    report = "audio cached as audio\\nvideo cached as video\\n"
    if told.exists():
        report = told.read_text()
    value("--report").write_text(report)
elif module == "launch" and (here / "real_launch").exists():
    os.environ["PYTHONPATH"] = {str(ROOT)!r}
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
elif module == "launch":
    out = value("--output_dir")
    shutil.copy(value("--config"), out / "config.yaml")
    for name in ("valid.acc.ave.pth", "3epoch.pth"):
        (out / name).write_text("model")
elif module == "package pack":
    value("--out").write_text("packed")
elif module == "avsr_inference":
    keys = [line.split()[0] for line in value("--key_file").read_text().splitlines()]
    lost = here / "lose"
    keys = [k for k in keys if not lost.exists() or k != lost.read_text()]
    levels = []
    for word in args[args.index("--snr") + 1 :] if "--snr" in args else []:
        if word.startswith("--"):
            break
        levels.append("clean" if word == "clean" else "snr" + word)
    for level in levels if len(levels) > 1 else [""]:
        out = value("--output_dir") / level / "1best_recog"
        out.mkdir(parents=True)
        for name in ("text", "token", "token_int", "score"):
            (out / name).write_text("".join(f"{{k}} HELLO WORLD\\n" for k in keys))
        (out.parent / "level").write_text(level)
"""

DATA = """#!/usr/bin/env bash
set -euo pipefail
echo "local/data.sh $*" >> data_calls
data="${@: -1}" # --data_dir DIR is last
for name in pretrain train valid test; do
    mkdir -p "$data/$name"
    for k in 1 2 3 4 5; do
        echo "$name-s1-$k HELLO WORLD" >> "$data/$name/text.new"
        echo "$name-s1-$k s1" >> "$data/$name/utt2spk.new"
    done
    mv "$data/$name/text.new" "$data/$name/text"
    mv "$data/$name/utt2spk.new" "$data/$name/utt2spk"
done
"""


class Recipe:
    """A copy of the TEMPLATE with a recipe beside it, in a path with spaces."""

    def __init__(self, path: Path):
        egs2 = path / "a clone" / "egs2"
        shutil.copytree(TEMPLATE, egs2 / "TEMPLATE" / "avsr_smop1", symlinks=True)
        self.dir = egs2 / "corpus" / "avsr_smop1"
        (self.dir / "local").mkdir(parents=True)
        (self.dir / "conf").mkdir()
        for name in LINKED:
            (self.dir / name).symlink_to(f"../../TEMPLATE/avsr_smop1/{name}")
        self.write("local/data.sh", DATA)
        self.write("conf/train.yaml", "audio_frontend: whisper\nvideo_frontend: avhubert\n")
        self.write("conf/decode.yaml", "beam_size: 1\n")
        self.write("env/bin/python", FAKE_PYTHON)

    def write(self, name: str, text: str) -> None:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(
        self, *arguments: str, script: str = "avsr_smop.sh", **environment: str
    ) -> subprocess.CompletedProcess:
        """Run the driver with the arguments of a usual run.sh before the given ones."""
        process = self.start(*arguments, script=script, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(
        self, *arguments: str, script: str = "avsr_smop.sh", **environment: str
    ) -> subprocess.Popen:
        """Start the driver as `run` does."""
        if script == "avsr_smop.sh":
            arguments = (
                *("--train_set", "train", "--valid_set", "valid", "--test_sets", "test"),
                *("--avsr_config", "conf/train.yaml", "--ngpu", "0", "--nj", "2"),
                *("--inference_nj", "2", *arguments),
            )
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env["ESPNET_SMOP_PYTHON"] = str(self.dir / "env/bin/python")
        env.update(environment)
        return subprocess.Popen(
            [f"./{script}", *arguments],
            cwd=self.dir, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def calls(self, module: str | None = None) -> list:
        """Return (module, arguments) of what Python was asked to do, or a module's arguments."""
        path = self.dir / "env" / "calls"
        made = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [args for name, args in made if name == module] if module else made


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path)


@pytest.fixture(scope="module")
def shared_recipe(tmp_path_factory):
    """Return a recipe that the tests of a module share."""
    return Recipe(tmp_path_factory.mktemp("recipe"))


class RecipeClone:
    """A copy of a recipe of this repository, which runs with this Python."""

    def __init__(self, directory: Path):
        self.dir = directory

    def run(self, *command: object) -> str:
        """Run a command in the recipe's directory; return what it says if it succeeds."""
        python_path = [str(ROOT), str(ROOT / "egs2/synthesis"), os.environ.get("PYTHONPATH", "")]
        env = {
            **os.environ,
            "ESPNET_SMOP_PYTHON": sys.executable,
            "PYTHONPATH": ":".join(filter(None, python_path)),
        }
        done = subprocess.run(
            [str(c) for c in command],
            cwd=self.dir, env=env, capture_output=True, text=True, timeout=3000,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        return done.stdout


@pytest.fixture(scope="module")
def clone_recipe(tmp_path_factory):
    """Return a function that copies the recipe of a corpus."""

    def clone(corpus: str) -> RecipeClone:
        egs2 = tmp_path_factory.mktemp("a clone") / "egs2"
        ignored = shutil.ignore_patterns("data", "dump", "exp", "downloads")
        shutil.copytree(ROOT / "egs2", egs2, symlinks=True, ignore=ignored)
        return RecipeClone(egs2 / corpus / "avsr_smop1")

    return clone


@pytest.fixture(scope="module")
def clone_with_tiny_models(clone_recipe, make_llm, tiny_avhubert):
    """Return a function that copies a corpus's recipe, with tiny random base models.

    ``conf/train_tiny.yaml`` names them; ``conf/decode_tiny.yaml`` has a beam of 2.
    """
    names = (
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
    )

    def clone(corpus: str) -> RecipeClone:
        recipe = clone_recipe(corpus)
        directory = recipe.dir
        torch.manual_seed(1)
        whisper = WhisperModel(WhisperConfig(
            d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=20, pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **dict.fromkeys(names, 1),
        ))  # fmt: skip
        whisper.save_pretrained(directory / "downloads/whisper")
        settings = {
            "base": "train_avsr.yaml",
            "audio_frontend_conf": {"model": "downloads/whisper"},
            "video_frontend_conf": {"model": tiny_avhubert},
            "decoder_conf": {"model": make_llm("llama3"), "lora": {"r": 2}},
            "projector_conf": {"hidden_size": 16},
            "batch_bins": 4000,
            "batch_limits": {"frames": 600},
            "accum_grad": 1,
            "num_workers": 0,
            "num_iters_per_epoch": 2,
            "max_epoch": 1,
            "scheduler_conf": {"first_cycle_steps": 2, "warmup_steps": 1},
            "use_amp": False,
        }
        (directory / "conf/train_tiny.yaml").write_text(yaml.safe_dump(settings))
        (directory / "conf/decode_tiny.yaml").write_text("{beam_size: 2, max_new_tokens: 4}\n")
        return recipe

    return clone


@pytest.fixture(scope="session")
def get_base_models():
    """Return a function that runs stage 6 of a recipe whose base models come from packages.

    What this checkout's recipe has made is taken from there. Where the packages can neither be
    imported nor fetched, the test is skipped.
    """

    def get(clone: RecipeClone, *options: str) -> None:
        made = ROOT / "egs2" / clone.dir.parent.name / clone.dir.name / "downloads"
        (clone.dir / "downloads").mkdir(exist_ok=True)
        for config in made.glob("*/config.json"):
            (clone.dir / "downloads" / config.parent.name).symlink_to(config.parent)
        try:
            clone.run("local/base_models.sh", *options)
        except AssertionError as error:
            if "cannot be fetched" in str(error):
                pytest.skip("the packages of the base models cannot be fetched")
            raise

    return get


@pytest.fixture(scope="module")
def asterisk(tmp_path_factory):
    """Return options that name 60 prompts of half a second; three more are no sentences."""
    directory = tmp_path_factory.mktemp("asterisk sounds")
    lines = ["; Core Sounds", "", "beep: [a tone]", "digit: Press 1 now", "one: Alone"]
    for i in range(60):
        letters = f"{chr(97 + i // 10)}{chr(97 + i % 10)}"
        lines.append(f"p-{letters}: Please call {letters}, Sir.")
        with av.open(str(directory / f"p-{letters}.g722"), "w", format="g722") as file:
            stream = file.add_stream("g722", rate=16000, layout="mono")
            samples = (np.sin(np.arange(8000) / 8) * 8000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = 16000
            file.mux([*stream.encode(frame), *stream.encode(None)])
    (directory / "texts.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return ["--sounds", str(directory), "--texts", str(directory / "texts.gz")]
