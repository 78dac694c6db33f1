"""Kills at random moments in the mini recipe; `test_mini_smoke.py` is the short form."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import kill_anywhere


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_a_killed_run_gives_what_an_undisturbed_one_does(tmp_path, capfd):
    """SMOP_KILLS kills in all (default 21), three for each stage that is killed."""
    kills = int(os.environ.get("SMOP_KILLS", "21"))
    with capfd.disabled():
        assert kill_anywhere.run(tmp_path, kills, seed=0) == []
    assert len(kill_anywhere.results_of(tmp_path)) > 100


def test_differences_are_seen(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "text").write_text("a b\n")
        (tmp_path / name / "data" / "path").write_text(f"{tmp_path / name}/x\n")
    assert kill_anywhere.differences(tmp_path / "one", tmp_path / "other") == []
    (tmp_path / "other/data/text").write_text("a c\n")
    (tmp_path / "one/data/more").touch()
    assert kill_anywhere.differences(tmp_path / "one", tmp_path / "other") == [
        "only in the undisturbed run: data/more",
        "differs: data/text",
    ]


def test_measured_times_may_differ_and_results_may_not(tmp_path):
    def write(name, seconds, error_rate):
        directory = tmp_path / name / "exp"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cost.csv").write_text(f"system,rtf,wer\ndedr,{seconds},{error_rate}\n")
        (directory / "costs.json").write_text(f'{{"decoding_seconds": {seconds}, "tokens": 1}}')

    write("one", 1, 2)
    write("other", 3, 2)
    assert kill_anywhere.differences(tmp_path / "one", tmp_path / "other") == []
    write("other", 1, 3)
    assert kill_anywhere.differences(tmp_path / "one", tmp_path / "other") == [
        "differs: exp/cost.csv"
    ]
