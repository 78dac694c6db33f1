"""A recipe in a directory of its own, with a Python that notes what it is asked to do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs2" / "TEMPLATE" / "avsr_smop1"
LINKED = ["avsr_smop.sh", "path.sh", "cmd.sh", "db.sh", "scripts"]

FAKE_PYTHON = f"""#!{sys.executable}
import json, os, runpy, shutil, sys
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
    report = told.read_text() if told.exists() else "audio cached\\nvideo cached\\n"
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
    out = value("--output_dir") / "1best_recog"
    out.mkdir(parents=True)
    keys = [line.split()[0] for line in value("--key_file").read_text().splitlines()]
    lost = here / "lose"
    keys = [k for k in keys if not lost.exists() or k != lost.read_text()]
    for name in ("text", "token", "token_int", "score"):
        (out / name).write_text("".join(f"{{k}} HELLO WORLD\\n" for k in keys))
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
        if script == "avsr_smop.sh":
            arguments = (
                *("--train_set", "train", "--valid_set", "valid", "--test_sets", "test"),
                *("--avsr_config", "conf/train.yaml", "--ngpu", "0", "--nj", "2"),
                *("--inference_nj", "2", *arguments),
            )
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env["ESPNET_SMOP_PYTHON"] = str(self.dir / "env/bin/python")
        env.update(environment)
        return subprocess.run(
            [f"./{script}", *arguments],
            cwd=self.dir, env=env, capture_output=True, text=True, timeout=300,
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
