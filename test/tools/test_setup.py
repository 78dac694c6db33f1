"""tools/setup.sh with Pythons that are shell scripts, so that nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Answers what setup.sh asks a Python; `-m pip` obeys the file pip_status beside the root.
FAKE = """#!/bin/bash
case "$1 $2" in
    "-c if True:"*) {answer} ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") echo "pip ${{@:3}}" >> "{log}"; exit "$(cat "{status}")" ;;
    "-c "*) exit 0 ;;
    *) exit 0 ;;
esac
"""


OPTION_ERROR = "egs2/TEMPLATE/avsr_smop1/scripts/utils/option_error.sh"


class Sandbox:
    """A copy of the script in a root of its own, and an empty home and PATH."""

    def __init__(self, path: Path):
        self.root = path / "the clone"
        for script in ("tools/setup.sh", OPTION_ERROR):
            (self.root / script).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / script, self.root / script)
        (self.root / "setup.py").write_text("# version 1\n")
        self.path, self.home = path / "bin", path / "home"
        self.path.mkdir()
        self.home.mkdir()
        self.log, self.status = path / "pip.log", path / "pip_status"
        self.status.write_text("0")
        # The script's own tools, but no Python of this machine.
        tools = "bash cat rm mv mkdir cp awk df cksum dirname grep tr readlink flock printf sleep"
        for tool in tools.split():
            (self.path / tool).symlink_to(shutil.which(tool))

    def add_python(self, file: Path, version: str | None) -> Path:
        """Put a Python of a version there; None is a shim that fails."""
        answer = f"echo {version}" if version else "echo pyenv: no such command >&2; exit 127"
        if version and not version.startswith(("3.12", "3.13")):
            answer = f"echo is Python {version} >&2; exit 1"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FAKE.format(answer=answer, log=self.log, status=self.status))
        file.chmod(0o755)
        return file

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        env = {"PATH": str(self.path), "HOME": str(self.home)}
        return subprocess.run(
            [str(self.root / "tools" / "setup.sh"), *arguments],
            env=env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    @property
    def venv(self) -> Path:
        return self.root / "tools" / "venv"

    def pip_calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


def test_failing_shims_and_old_pythons_are_passed_over(sandbox):
    sandbox.add_python(sandbox.path / "python3.12", None)
    sandbox.add_python(sandbox.path / "python3", "3.10.1")
    fitting = sandbox.add_python(sandbox.home / ".pyenv/versions/3.13.0/bin/python", "3.13.0")
    done = sandbox.run()
    assert done.returncode == 0, done.stderr
    assert f"with {fitting} (3.13.0)" in done.stdout
    assert "-e " + str(sandbox.root) in sandbox.log.read_text()
    assert "[recipes,mini,slurm,test]" in sandbox.log.read_text()


@pytest.mark.parametrize(
    "where",
    ["miniconda3/envs/my env/bin/python", ".local/share/uv/python/cpython-3.12/bin/python3"],
)
def test_pythons_of_conda_and_uv_are_found(sandbox, where):
    fitting = sandbox.add_python(sandbox.home / where, "3.12.9")
    assert f"with {fitting} " in sandbox.run().stdout


def test_no_python_is_a_clear_error(sandbox):
    sandbox.add_python(sandbox.path / "python3", "3.9.2")
    done = sandbox.run()
    assert done.returncode == 1
    assert "no Python 3.12 or 3.13 found" in done.stderr
    assert "--python PATH" in done.stderr
    assert not sandbox.venv.exists()


def test_a_given_python_must_fit(sandbox):
    old = sandbox.add_python(sandbox.home / "old", "3.11.1")
    done = sandbox.run("--python", str(old))
    assert done.returncode == 1
    assert "is Python 3.11.1" in done.stderr
    assert "does not exist" in sandbox.run("--python", "/nowhere/python").stderr


def test_second_run_does_nothing_and_a_changed_setup_py_updates(sandbox):
    sandbox.add_python(sandbox.path / "python3.12", "3.12.1")
    assert sandbox.run().returncode == 0
    assert "nothing to do" in sandbox.run().stdout
    assert sandbox.run("--quiet_if_complete", "true").stdout == ""
    assert sandbox.pip_calls() == 1
    assert sandbox.run("--check").returncode == 0
    (sandbox.root / "setup.py").write_text("# version 2\n")
    assert sandbox.run("--check").returncode == 1
    marker = sandbox.venv / "kept"
    marker.touch()
    assert "updating" in sandbox.run().stdout
    assert sandbox.pip_calls() == 2
    assert marker.exists()


def test_after_a_failed_download_the_environment_is_made_anew(sandbox):
    sandbox.add_python(sandbox.path / "python3.12", "3.12.1")
    sandbox.status.write_text("1")
    done = sandbox.run()
    assert done.returncode == 1
    assert "pip failed" in done.stderr
    assert sandbox.run("--check").returncode == 1
    (sandbox.venv / "half").touch()
    sandbox.status.write_text("0")
    done = sandbox.run()
    assert done.returncode == 0
    assert "incomplete" in done.stdout
    assert not (sandbox.venv / "half").exists()
    assert sandbox.run("--check").returncode == 0


def test_into_leaves_tools_venv_alone(sandbox):
    mine = sandbox.add_python(sandbox.home / "env/bin/python", "3.12.3")
    done = sandbox.run("--into", str(mine))
    assert done.returncode == 0, done.stderr
    assert f"ESPNET_SMOP_PYTHON={mine}" in done.stdout
    assert sandbox.pip_calls() == 1
    assert not sandbox.venv.exists()


def test_options_are_checked(sandbox):
    assert "no option --pyton; did you mean --python?" in sandbox.run("--pyton", "x").stderr
    assert "needs a value" in sandbox.run("--python").stderr
    assert "--into PYTHON" in sandbox.run("--help").stdout


def test_real_environment_is_reported():
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    import sys

    done = subprocess.run(
        [str(ROOT / "tools" / "setup.sh"), "--check", "--into", sys.executable],
        env=env, capture_output=True, text=True,
    )  # fmt: skip
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["python"].startswith("3.1")
    assert {"torch", "espnet", "gpu", "sclite", "disk"} <= lines.keys()
