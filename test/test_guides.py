"""The code of the guides runs, and leaves what they say."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_smop.fileio.video import write_video

GUIDES = Path(__file__).resolve().parents[1] / "docs" / "guides"


def blocks(name):
    """Return the language and code of each block of a guide."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (GUIDES / name).read_text(), re.M | re.S)


def run_block(language, code):
    """Run commands of this package (without a shell), or Python."""
    if language == "python":
        exec(compile(code, "guide", "exec"), {"__name__": "guide"})
        return
    assert language == "sh", language
    for line in code.replace("\\\n", " ").splitlines():
        python, m, command, *words = shlex.split(line, comments=True)
        assert (python, m) == ("python", "-m"), line
        importlib.import_module(command).main(words)


def test_guides_are_short():
    for guide in GUIDES.glob("*.md"):
        assert len(guide.read_text().splitlines()) <= 60, guide


@pytest.fixture
def talks(tmp_path, monkeypatch, experiment):
    """Change to a directory that has what the guide on transcription names."""
    rng = np.random.default_rng(0)
    (tmp_path / "talks/day1").mkdir(parents=True)
    for name in ("talk", "talks/day1/a"):
        write_video(tmp_path / f"{name}.mp4", rng.integers(0, 255, (20, 96, 96), dtype=np.uint8))
        np.save(tmp_path / f"{name}.npy", np.tile(rng.uniform(20, 76, (1, 68, 2)), (20, 1, 1)))
    soundfile.write(tmp_path / "talks/b.wav", 0.1 * rng.normal(size=8000), 16000)
    (tmp_path / "MODEL").symlink_to(experiment)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_transcribe(talks, capsys):
    printed = []
    for language, code in blocks("transcribe.md"):
        run_block(language, code)
        printed.append(capsys.readouterr().out)
    assert len(printed) == 3
    assert printed[0].startswith("[0:00:00.00 - 0:00:00.80] ")
    assert printed[1] == ""
    warning, line = printed[2].splitlines()
    assert "no audio stream" in warning and re.fullmatch(r"0\.0 0\.8 .* \(.video.,\)", line)
    written = {str(p.relative_to(talks)) for p in talks.rglob("*.[sj]*") if "MODEL" not in str(p)}
    assert written == {
        "talks/day1/a.srt", "talks/b.srt", "exp/transcripts/day1/a.mp4.json",
        "exp/transcripts/b.wav.json", "exp/transcripts/talk.mp4.json",
    }  # fmt: skip
