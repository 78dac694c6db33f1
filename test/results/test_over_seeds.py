"""Means over seeds, and differences from the first system, of small scored experiments."""

import re

import numpy as np
import pytest

from espnet_smop.bin import results
from espnet_smop.results.crossed import crossed
from espnet_smop.results.significance import holm
from espnet_smop.results.transcripts import ScoringError

WORDS = 10
UTTERANCES = 12
# name: seed, wrong words of each utterance; b is worse than a with each seed, c is as a
TRAININGS = {
    "avsr_a": (0, [1, 0] * 6),
    "avsr_a_seed1": (1, [1, 1] * 6),
    "avsr_a_seed2": (2, [2, 0] * 6),
    "avsr_b_seed1": (1, [4, 4] * 6),
    "avsr_b_seed2": (2, [5, 3] * 6),
    "avsr_b": (0, [4, 3] * 6),
    "avsr_c_seed1": (1, [0, 2] * 6),
    "avsr_c_seed3": (3, [0, 2] * 6),
}


def text(wrong):
    return "".join(
        f"s{k % 3}-{k} {' '.join(['no'] * n + ['yes'] * (WORDS - n))}\n"
        for k, n in enumerate(wrong)
    )


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a scored experiment."""

    def make(name, seed, wrong, **projector_conf):
        exp = tmp_path / "exp" / name
        exp.mkdir(parents=True)
        ref = tmp_path / f"ref{len(wrong)}"
        ref.write_text(text([0] * len(wrong)))
        (exp / "config.yaml").write_text(
            f"audio_frontend: whisper\nvideo_frontend: avhubert\nseed: {seed}\n"
            f"projector_conf: {projector_conf}\n"
        )
        (tmp_path / "hyp").write_text(text(wrong))
        results.main(["score", "--ref", str(ref), "--hyp", str(tmp_path / "hyp"),
                      "--out_dir", str(exp / "decode/test"), "--sclite", "none"])  # fmt: skip
        return str(exp)

    return make


def test_tables(make, capsys):
    paths = [make(name, *training) for name, training in TRAININGS.items()]
    capsys.readouterr()
    results.main(["table", "--over_seeds", *paths])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "WER in % on test, mean ± standard deviation over seeds"
    assert [line.split() for line in lines[3:6]] == [
        ["AVSR", "avsr_a", "3", *f"{np.mean([5, 10, 10]):.2f} ± 2.89".split()],
        ["AVSR", "avsr_b", "3", *f"{np.mean([35, 40, 40]):.2f} ± 2.89".split()],
        ["AVSR", "avsr_c", "2", "10.00", "±", "0.00"],
    ]
    assert lines[6].startswith("Difference from avsr_a in points")

    def errors(*names):
        return [TRAININGS[name][1] for name in names]

    words = [WORDS] * UTTERANCES
    a = errors("avsr_a", "avsr_a_seed1", "avsr_a_seed2")
    b = errors("avsr_b", "avsr_b_seed1", "avsr_b_seed2")
    # c has only one seed of a's.
    expected = [crossed(b, a, words), crossed(errors("avsr_c_seed1"), a[1:2], words)]
    adjusted = holm([c.p_value for c in expected])
    assert adjusted[0] < 0.01 < adjusted[1]
    for line, c, p in zip(lines[10:], expected, adjusted, strict=True):
        found = [float(x) for x in re.findall(r"[-+]?\d+\.\d+", line)]
        assert found == pytest.approx([100 * x for x in c[:3]] + [p], abs=0.0051)
        assert line.endswith("*") == (p < 0.05)


def test_one_training_has_no_deviation_and_nothing_is_no_error(make, tmp_path, capsys):
    path = make("avsr_a_seed4", 4, [1, 0] * 6)
    capsys.readouterr()
    results.main(["table", "--over_seeds", "true", path])
    assert capsys.readouterr().out.splitlines()[3].split() == ["AVSR", "avsr_a", "1", "5.00"]
    (tmp_path / "none").mkdir()
    results.main(["table", "--over_seeds", "true", str(tmp_path / "none")])
    assert "no scored decode directory" in capsys.readouterr().out


def test_errors(make):
    one, other = make("avsr_a", 1, [1, 0] * 6), make("avsr_a_seed1", 1, [1, 0] * 6)
    with pytest.raises(ScoringError, match="avsr_a and .*avsr_a_seed1 have the same seed, 1"):
        results.main(["table", "--over_seeds", one, other])
    with pytest.raises(ScoringError, match="differ in utterances or references"):
        results.main(["table", "--over_seeds", one, make("avsr_b", 1, [0] * 5)])
    with pytest.raises(ValueError, match="without --compare"):
        results.main(["table", "--over_seeds", "--compare", one, other])


def test_figure_over_widths(make, tmp_path, capsys):
    paths = []
    for width, wrong in ((8, 4), (32, 2)):
        for seed in (0, 1):
            suffix = f"_seed{seed}" if seed else ""
            errors = [wrong + seed] * UTTERANCES
            paths.append(make(f"avsr_smop_w{width}{suffix}", seed, errors, hidden_size=width))
    paths.append(make("avsr_dense_w8", 0, [5] * UTTERANCES, hidden_size=19))
    capsys.readouterr()
    results.main(["widths", *paths, "--output_dir", str(tmp_path / "out")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "width.svg")
    assert (tmp_path / "out" / "width.csv").read_text().splitlines() == [
        "system,width,hidden_size,test_set,noise,snr,seeds,mean,deviation",
        f"smop,8,8,test,,clean,2,45.0,{10 * 0.5**0.5:.4f}",
        f"smop,32,32,test,,clean,2,25.0,{10 * 0.5**0.5:.4f}",
        "dense,8,19,test,,clean,1,50.0,",
    ]
    svg = (tmp_path / "out" / "width.svg").read_text()
    assert "Hidden width" in svg and len(svg) < 100_000
    with pytest.raises(ScoringError, match="b has no width: experiments are called"):
        results.main(["widths", make("avsr_b", 0, [1] * 12), "--output_dir", str(tmp_path)])
