"""Damaged files in every reader; a moment each in CI, ten minutes each in the long form."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz.py"
ROOT = Path(__file__).resolve().parents[2]


def run(minutes, directory):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(FUZZ), "--minutes", str(minutes), "--keep", str(directory)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.slow
def test_damaged_files_end_in_documented_errors(tmp_path):
    run(0.02, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(24 * 3600)
def test_damaged_files_for_long(tmp_path):
    """SMOP_FUZZ_MINUTES of processor time for each reader (default 10)."""
    run(float(os.environ.get("SMOP_FUZZ_MINUTES", "10")), tmp_path)
