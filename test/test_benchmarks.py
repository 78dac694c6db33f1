"""The benchmarks of training run, at sizes that say nothing about speed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*words):
    command = [sys.executable, *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_training(tmp_path):
    words = ["--tiny", "--corpus", "400", "--batches", "1", "--rounds", "1"]
    run("benchmarks/train.py", *words, "--growth", "--json", tmp_path / "train.json")
    found = json.loads((tmp_path / "train.json").read_text())
    assert found["rows"]["ours"]["speed"] == 1.0
    # What public code keeps for the backward pass is no matter of the machine.
    assert found["rows"]["reference"]["memory"] > 1.3
    for shares in found["split"].values():
        assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0
    assert found["waste"]["ours"]["frames"] < 0.1
    # A third from a quadratic term would be 1.33.
    assert found["growth"]["operations"] < 1.2


def gpu_script(*words):
    command = ["benchmarks/gpu.sh", "--device", "cpu", "--rehearse", "true", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=7000, check=False
    )


def test_the_script_for_gpus_is_rehearsed(tmp_path):
    parts = ["check", "projector", "encoders", "train_1b", "decode"]
    words = ["--parts", " ".join(parts), "--limit", 1500, "--out", tmp_path, "--machine", "here"]
    done = gpu_script(*words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "here.json").read_text())["parts"]
    assert list(found) == parts
    assert {part["status"] for part in found.values()} == {"complete"}
    right = [row["right"] for row in found["check"]["figures"]["rows"]]
    assert right == [True, True]
    page = (tmp_path / "here.md").read_text()
    assert all(f"## {part}: complete" in page for part in parts)
    assert run("benchmarks/results.py", "show", tmp_path / "here.json").strip() == page.strip()


def test_a_page_of_a_machine(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import results

    for name, status in (("b", 0), ("a", 124), ("c", 3)):
        (tmp_path / f"{name}.run").write_text(
            f"status {status}\nseconds 7\ncommand python {name}\n"
        )
    (tmp_path / "b.md").write_text("| x |\n")
    (tmp_path / "b.json").write_text('{"rows": [1]}')
    for i, name in enumerate("bac"):  # in the order in which they ran
        os.utime(tmp_path / f"{name}.run", (i, i))
    found = results.collect(tmp_path, "cpu")
    assert found["machine"]["cpu"] and list(found["parts"]) == ["b", "a", "c"]
    assert found["parts"]["b"]["figures"] == {"rows": [1]} and not found["parts"]["a"]["page"]
    page = results.show(found)
    assert "## b: complete, 7 s\n\n    python b\n\n| x |" in page
    assert "## a: stopped at its time limit, 7 s" in page and "## c: failed with status 3" in page


def test_a_part_stops_at_its_time_limit_and_the_page_says_so(tmp_path):
    words = ["--parts", "projector", "--limit", 1, "--out", tmp_path, "--machine", "here"]
    done = gpu_script(*words)
    assert done.returncode == 1 and "not complete: projector" in done.stderr
    assert "## projector: stopped at its time limit" in (tmp_path / "here.md").read_text()
    assert gpu_script("--parts", "tea").returncode == 2


def test_start_up():
    lines = run("benchmarks/startup.py", "--utterances", "200", "2000").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["200", "2,000"]


def test_processes_share_the_corpus_and_step_together(tmp_path):
    words = ["--utterances", "16", "--rounds", "1", "--json", tmp_path / "scale.json"]
    run("benchmarks/processes.py", *words)
    rows = json.loads((tmp_path / "scale.json").read_text())["rows"]
    assert rows["1"]["utterances"] == [16] and sum(rows["2"]["utterances"]) == 16
    assert len(rows["2"]["steps"]) == 2 and len(set(rows["2"]["steps"])) == 1
    assert rows["2"]["steps"][0] < rows["1"]["steps"][0]


def test_preparation_grows_with_the_corpus(tmp_path):
    words = ["--sizes", "60", "100", "--parts", "prepare", "--json", tmp_path / "scale.json"]
    run("benchmarks/corpus_size.py", *words)
    found = json.loads((tmp_path / "scale.json").read_text())
    costs = [found["parts"]["prepare"][size] for size in ("40", "60", "100")]
    # With the test set, without the utterances that long clips are made of
    assert [c["utterances"] > n for c, n in zip(costs, (40, 60, 100), strict=True)] == [True] * 3
    assert costs[0]["cpu"] < costs[2]["cpu"]
    assert found["slopes"].keys() == {"prepare"}


def test_slopes_are_of_what_is_beyond_the_smallest(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import corpus_size
    import timing

    rows = {n: {"utterances": n + 5, "cpu": 20 + 0.1 * (n - 40) ** 1.5} for n in (40, 200, 600)}
    assert timing.slope(corpus_size.beyond(rows)) == pytest.approx(1.5)
    rows[600]["cpu"] = 1
    with pytest.raises(ValueError, match="took no more time"):
        corpus_size.beyond(rows)
