import subprocess
import sys

import pytest


@pytest.mark.slow
def test_importing_the_package_prints_nothing():
    command = [sys.executable, "-c", "import espnet_smop.inference"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
