"""`pip install .` gives recognition and `transcribe`, without what only recipes need."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution, packages_distributions
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_smop import command

ROOT = Path(__file__).resolve().parents[1]

# Hides modules as if their packages were not installed, then calls a command.
CALL = """
import sys

hidden = sys.argv[1].split(",")

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *args):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, *args)

sys.meta_path[:] = map(Hiding, sys.meta_path)
import jinja2
import espnet_smop.inference
from espnet_smop.bin import transcribe

print(espnet_smop.__file__)
for package, template in (("checkpoint", "model_card.md"), ("results", "report.html")):
    loader = jinja2.PackageLoader(f"espnet_smop.{package}", ".")
    loader.get_source(jinja2.Environment(), f"{template}.jinja")
transcribe.main(sys.argv[2:])
"""


def pip(*words, cwd):
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", words[0], *options, *words[1:]],
        cwd=cwd, check=True, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel that pip builds of a clone without anything else in it."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone / name)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "espnet_smop", clone / "espnet_smop", ignore=ignore)
    for name in ("egs2/x/local.py", "test/test_x.py", "espnet_smop/x.txt"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    pip("wheel", ".", "--no-build-isolation", "--wheel-dir", "wheels", cwd=clone)
    [file] = (clone / "wheels").iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("target")
    pip("install", str(wheel), "--target", str(target), cwd=target)
    return target


def requirements(installed):
    """Return extra, or nothing → names of packages."""
    [info] = installed.glob("*.dist-info")
    found = {}
    for line in PathDistribution(info).requires:
        extra = re.search(r'extra == "(\w+)"', line)
        found.setdefault(extra and extra[1], set()).add(re.match(r"[\w.-]+", line)[0])
    return found


def test_the_wheel_holds_the_package_and_its_templates_alone(wheel):
    files = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    inside = {f for f in files if ".dist-info" not in f.parts[0]}
    source = ROOT / "espnet_smop"
    wanted = {p for kind in ("py", "jinja", "css") for p in source.rglob(f"*.{kind}")}
    assert inside == {f.relative_to(ROOT) for f in wanted}
    assert any(f.name == "LICENSE" for f in files)


def test_what_recipes_need_is_an_extra(installed):
    found = requirements(installed)
    assert found.keys() == {
        None, "recipes", "mini", "landmarks", "demo", "browser", "notebook", "gguf", "nf4", "slurm",
        "test",
    }  # fmt: skip
    assert found["recipes"] == set(command._RECIPE_PACKAGES)
    extras = set.union(*(found[extra] for extra in found if extra))
    assert not extras & found[None]


@pytest.mark.slow
def test_transcribing_needs_no_extra(installed, experiment, tmp_path):
    found = requirements(installed)
    extras = {name.lower() for extra in found if extra for name in found[extra]}
    modules = [
        module
        for module, packages in packages_distributions().items()
        if extras & {p.lower().replace("_", "-") for p in packages}
    ]
    assert {"matplotlib", "tensorboard", "kaldiio", "jiwer", "rapidfuzz"} <= set(modules)
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16000)
    done = subprocess.run(
        [sys.executable, "-P", "-c", CALL, ",".join(modules), str(experiment), "a.wav"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, line = done.stdout.splitlines()[-2:]
    assert Path(first).is_relative_to(installed)
    assert line.startswith("[0:00:00.00 - 0:00:00.48] ")
