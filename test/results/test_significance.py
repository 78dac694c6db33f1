import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from espnet_smop.results.alignment import align
from espnet_smop.results.sclite import find_sclite
from espnet_smop.results.significance import holm, matched_pairs, segments
from espnet_smop.results.trn import Utterance, format_line

SGML = ["-i", "rm", "-o", "sgml", "stdout"]


def cut(reference, a, b):
    words = reference.split()
    return list(segments(align(words, a.split()), align(words, b.split())))


def test_segments_end_where_both_are_right_for_two_words():
    ref = "a b c d e f g h"
    assert cut(ref, ref, ref) == []
    assert cut(ref, "x b c d e f g h", ref) == [(1, 0)]
    # One right word between does not part them, two do.
    assert cut(ref, "x b y d e f g h", ref) == [(2, 0)]
    assert cut(ref, "x b c y e f g h", ref) == [(1, 0), (1, 0)]
    # Right for A is not enough.
    assert cut(ref, "x b c y e f g h", "a b z d e f g h") == [(2, 1)]
    # An inserted word parts right words.
    assert cut(ref, "x b i c d e f g h", ref) == [(2, 0)]
    # Words inserted at the end count for either system.
    assert cut(ref, ref + " i", ref) == [(1, 0)]
    assert cut(ref, ref, ref + " i j") == [(0, 2)]


def test_alignments_of_different_references():
    with pytest.raises(ValueError, match="2 words and 1 words"):
        list(segments(align(["a", "b"], []), align(["a"], [])))


def test_no_spread_and_no_segments():
    alignment = [align(["a"], ["b"])] * 5
    right = [align(["a"], ["a"])] * 5
    assert matched_pairs(right, right) == (0, 0.0, 0.0, 0.0, 1.0)
    assert matched_pairs(alignment, alignment).p_value == 1
    found = matched_pairs(alignment, right)
    assert (found.segments, found.z, found.p_value) == (5, math.inf, 2 / 32)


def test_holm():
    # The example of Holm's rule worked by hand: 3 · 0.01, then 2 · 0.02, then 0.03 raised to it.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def spoil(words, rate, rng):
    out = []
    for word in words:
        draw = rng.random()
        if draw < rate / 3:
            continue
        out.append("s" + word if draw < 2 * rate / 3 else word)
        if rng.random() < rate / 3:
            out.append("i" + word)
    return out


def write_trn(path: Path, sentences):
    # With a last word that all have right sc_stats counts each word inserted before it.
    lines = [
        format_line(Utterance(f"s{k % 4}", f"u{k:03d}", [*words, "end"]))
        for k, words in enumerate(sentences)
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("seed", "rates"), [(0, (0.2, 0.25)), (1, (0.05, 0.05)), (2, (0.5, 0.3))])
def test_the_result_is_that_of_sc_stats(tmp_path, seed, rates):
    sclite = find_sclite()
    sc_stats = Path(sclite or "").with_name("sc_stats")
    if not sclite or not sc_stats.is_file():
        pytest.skip("sclite is not installed (Debian's package sctk)")
    rng = np.random.default_rng(seed)
    references = [[f"w{k}" for k in rng.integers(0, 20, rng.integers(1, 15))] for _ in range(200)]
    hypotheses = {
        name: [spoil(r, rate, rng) for r in references]
        for name, rate in zip("ab", rates, strict=True)
    }
    write_trn(tmp_path / "ref.trn", references)
    sgml = b""
    for name, sentences in hypotheses.items():
        write_trn(tmp_path / f"{name}.trn", sentences)
        sgml += subprocess.run(
            [sclite, "-r", "ref.trn", "trn", "-h", f"{name}.trn", "trn", *SGML],
            cwd=tmp_path, capture_output=True, check=True,
        ).stdout  # fmt: skip
    subprocess.run(
        [sc_stats, "-p", "-t", "mapsswe", "-v", "-n", "out"],
        cwd=tmp_path, input=sgml, capture_output=True, check=True,
    )  # fmt: skip
    report = (tmp_path / "out.stats.mapsswe").read_text()
    count, mean, deviation, z = re.search(
        r"# segs: (\d+)\).*mean: +(\S+)\) \(std dev: +(\S+)\) \(Z Stat: +(\S+)\)", report
    ).groups()

    found = matched_pairs(
        *(
            [align(r, h) for r, h in zip(references, sentences, strict=True)]
            for sentences in hypotheses.values()
        )
    )
    assert found.segments == int(count)
    assert found.mean == pytest.approx(float(mean), abs=5.1e-4)
    assert found.deviation == pytest.approx(float(deviation), abs=5.1e-4)
    assert found.z == pytest.approx(float(z), abs=5.1e-4)
    assert (found.p_value < 0.05) == ("Stat Diff: Yes" in report)
