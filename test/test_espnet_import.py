import subprocess
import sys

import pytest


def output_of(code, cwd=None):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_importing_the_package_prints_nothing():
    assert output_of("import espnet_smop.inference") == ""


def test_only_functions_of_espnet_are_not_checked_by_typeguard(tmp_path):
    function = "import typeguard\n\n@typeguard.typechecked\ndef double(x: int):\n    return 2 * x\n"
    (tmp_path / "others.py").write_text(function)
    code = """
import espnet_smop, others, typeguard
from espnet2.text.char_tokenizer import CharTokenizer
print(CharTokenizer(space_symbol=1).space_symbol)
try:
    others.double("1")
except typeguard.TypeCheckError:
    print("checked")
"""
    assert output_of(code, tmp_path).split() == ["1", "checked"]
