"""The base models that are committed with the mini recipe."""

import shutil
from pathlib import Path

import pytest
import torch

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.frontend.avhubert import AVHuBERTFrontend
from espnet_smop.frontend.whisper import WhisperFrontend

MINI = Path(__file__).resolve().parents[2] / "egs2/mini_lrs3/avsr_smop1"
BASES = MINI / "base_models"


def test_they_are_small():
    assert sum(p.stat().st_size for p in BASES.rglob("*") if p.is_file()) < 12e6


@pytest.mark.parametrize(
    ("name", "load"),
    [("whisper", WhisperFrontend), ("avhubert", AVHuBERTFrontend), ("llm", LLMDecoder)],
)
def test_they_are_those_of_the_readme(name, load):
    model = load(model=str(BASES / name))
    fingerprint = model.fingerprints()[name]
    rows = (BASES / "README.md").read_text().splitlines()
    (row,) = (line for line in rows if line.startswith(f"| `{name}`"))
    assert f"`{fingerprint}`" in row
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_stage_6_puts_them_in_place_and_repairs_what_is_there(recipe):
    shutil.copytree(BASES, recipe.dir / "base_models")
    shutil.copy(MINI / "local/base_models.sh", recipe.dir / "local/base_models.sh")
    assert recipe.run("--stage", "6", "--stop_stage", "6").returncode == 0
    placed = recipe.dir / "exp/base"
    weights = placed / "llm/model.safetensors"
    assert weights.read_bytes() == (BASES / "llm/model.safetensors").read_bytes()
    made = weights.stat().st_mtime_ns
    assert recipe.run("--stage", "6", "--stop_stage", "6").returncode == 0
    assert weights.stat().st_mtime_ns == made
    weights.write_bytes(b"half")
    (placed / "whisper").rename(placed / "elsewhere")
    assert recipe.run("--stage", "6", "--stop_stage", "6").returncode == 0
    assert weights.read_bytes() == (BASES / "llm/model.safetensors").read_bytes()
    assert (placed / "whisper/config.json").is_file()
