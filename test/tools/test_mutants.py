"""tools/mutants.py: what it changes, and that tests notice a sample of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from mutations import equivalent, mutants_of

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""Docs of 3 lines."""

LIMIT: int | None = 5


def f(x, name="é", *, dim=-1) -> int | None:
    """Give 1."""
    if x.size < LIMIT and not x.any():
        raise ValueError(f"{x.size + 1}")
    check(x)
    return x.sum(dim) + max(
        x[1:name]
    )
'''


def test_each_mutant_is_one_change():
    mutants = mutants_of("a.py", SOURCE.encode())
    assert {m.new for m in mutants} == {
        "LIMIT: int | None = 6",
        "LIMIT: int | None = 4",
        "def f(x, name='mutated', *, dim=-1) -> int | None:",
        'def f(x, name="é", *, dim=-2) -> int | None:',
        'def f(x, name="é", *, dim=-0) -> int | None:',
        "if (x.size < LIMIT or not x.any()):",
        "if (x.size <= LIMIT) and not x.any():",
        "if x.size < LIMIT and x.any():",
        "if x.size < LIMIT and not x.all():",
        "pass",
        "return None",
        "return (x.sum(dim) - max(x[1:name]))",
        "return x.sum(dim) + min(",
        "x[2:name]",
        "x[0:name]",
        "x[1:(name + 1)]",
    }
    for m in mutants:
        compile(m.source, m.path, "exec")
    [default] = (m for m in mutants if "mutated" in m.new)
    assert default.lines is None  # as the function is defined, not as it is called
    assert {m.lines for m in mutants if m.line == 8} == {range(8, 9)}


def test_mutants_listed_as_equivalent_exist():
    listed = equivalent((ROOT / "test/mutants_equivalent.txt").read_text())
    made = {
        mutant.key
        for path in {path for path, _, _ in listed}
        for mutant in mutants_of(path, (ROOT / path).read_bytes())
    }
    assert not listed - made


@pytest.mark.slow
@pytest.mark.timeout(1800)  # less than a minute on an idle processor
def test_tests_notice_nine_of_ten_mutants():
    sources = ["results/alignment", "projector/downsample", "projector/fusion", "projector/router"]
    command = [sys.executable, ROOT / "tools/mutants.py", "--jobs", "2"]
    command += ["--sample", "20", "--seed", "1"]
    command += [f"espnet_smop/{source}.py" for source in sources]
    command += ["--tests", *(re.sub(r"/(\w+)$", r"/test_\1.py", f"test/{s}") for s in sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    rate = re.search(r"of 20 mutants noticed: ([\d.]+) %", done.stdout)
    assert rate and float(rate[1]) >= 90, done.stdout + done.stderr
