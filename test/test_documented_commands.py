"""What documented commands write is ignored by git: `git status` stays clean."""

import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import espnet_smop.bin

ROOT = Path(__file__).resolve().parents[1]
RECIPE = Path("egs2/mini_lrs3/avsr_smop1")
OUTPUT = re.compile(
    r"(?:--(?:output_dir|out_dir|out|json|strip|expdir|exp_dir|dumpdir|dump_dir|datadir|feats_cache)"
    r"[ =]| > )([^ `|\")]+)"
)
# What the stages write; the driver's defaults
STAGES = ("data/train/text", "dump/raw/test/text", "exp/avsr_x/config.yaml", "downloads/x/a.mp4")


def documents():
    """Yield the name and text of documents and of the commands' examples."""
    for file in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("egs2/*/*/README.md")):
        yield str(file.relative_to(ROOT)), file.read_text()
    for module in pkgutil.iter_modules(espnet_smop.bin.__path__):
        yield (
            module.name,
            Path(importlib.util.find_spec(f"espnet_smop.bin.{module.name}").origin)
            .read_text()
            .replace("\\\\\n", " "),
        )


def outputs():
    """Return document → paths that its commands write, relative to the clone."""
    found = {}
    for name, text in documents():
        for line in text.replace("\\\n", " ").splitlines():
            if "espnet_smop.bin" not in line and "benchmarks/" not in line and ".sh " not in line:
                continue
            place = Path() if "benchmarks/" in line else RECIPE
            for path in OUTPUT.findall(line):
                # DIR and FILE.png stand for the reader's own.
                if not re.fullmatch(r"[A-Z_]+(\.\w+)?", path) and "…" not in path:
                    found.setdefault(name, []).append(place / path)
    return found


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_what_documented_commands_write_is_ignored():
    found = outputs()
    paths = {str(path) for written in found.values() for path in written}
    assert len(paths) > 5
    paths |= {str(RECIPE / path) for path in STAGES}
    asked = "\n".join(f"{path}/x" if "." not in Path(path).name else path for path in sorted(paths))
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT, input=asked, capture_output=True, text=True,
    )  # fmt: skip
    assert sorted(set(asked.splitlines()) - set(done.stdout.splitlines())) == []
