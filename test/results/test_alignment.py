"""Alignment and tables against sclite itself."""

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from espnet_smop.results.alignment import align, count
from espnet_smop.results.sclite import find_sclite, run_sclite
from espnet_smop.results.sclite_report import report
from espnet_smop.results.trn import Utterance, format_line, read_trn

needs_sclite = pytest.mark.skipif(find_sclite() is None, reason="sclite is not installed")


def random_corpus(seed: int, pairs: int, empty_references: bool = False):
    """References and hypotheses of few different words, so that alignments tie often."""
    rng = random.Random(seed)
    references, hypotheses = [], []
    for k in range(pairs):
        words = ["aa", "B", "ccc", "D'd", "e-", "été", "<space>"][: rng.randint(2, 7)]
        speaker = f"Speaker-{k % 7}_x" if k % 2 else f"s{k % 5}"
        shortest = 0 if empty_references and speaker == "s0" else 1
        longest = 0 if shortest == 0 else 10
        reference = [rng.choice(words) for _ in range(rng.randint(shortest, longest))]
        hypothesis = [rng.choice(words) for _ in range(rng.randint(0, 10))]
        hypothesis = [w.upper() if w.isascii() else w for w in hypothesis]
        references.append(Utterance(speaker, f"utt{k}", reference))
        hypotheses.append(Utterance(speaker, f"utt{k}", hypothesis))
    return references, hypotheses


def write(path: Path, utterances: list[Utterance]) -> Path:
    path.write_text("".join(format_line(u) + "\n" for u in utterances))
    return path


@needs_sclite
@pytest.mark.parametrize(("seed", "empty_references"), [(0, False), (1, False), (2, True)])
def test_report_is_sclites_line_by_line(tmp_path, seed, empty_references):
    references, hypotheses = random_corpus(seed, 300, empty_references)
    ref = write(tmp_path / "ref.trn", references)
    hyp = write(tmp_path / "hyp.trn", hypotheses)
    expected = run_sclite(find_sclite(), ref, hyp)
    ours = report(read_trn(ref), read_trn(hyp), "hyp.trn")

    def relevant(text):
        # Blank space at line ends and around boxes, and byte-wise padding of é, carry no figures.
        lines = (line.strip() for line in text.splitlines())
        return [x for x in lines if x and not x.startswith(("REF:", "HYP:", "Eval:"))]

    assert relevant(ours) == relevant(expected)
    compared = 0
    for a, b in zip(shown(ours), shown(expected), strict=True):
        if b.isascii():  # sclite pads by bytes
            assert a == b
            compared += 1
    assert compared > 100


def shown(text: str) -> list[str]:
    """The alignments as shown to a reader, one string an utterance."""
    return re.findall(r"^Scores:.*\n(?:REF:.*\nHYP:.*\nEval:.*$)?", text, flags=re.MULTILINE)


@needs_sclite
def test_markup_in_a_hypothesis_is_scored_as_words(tmp_path):
    words = ["(hello)", "{", "}", "@", ";;", "*", "a\\", "a/b", "you", "("]
    references = [Utterance("s", f"u{k}", [w, "you"]) for k, w in enumerate(words)]
    hypotheses = [Utterance("s", f"u{k}", [";;", *words[k:]]) for k in range(len(words))]
    ref, hyp = write(tmp_path / "ref.trn", references), write(tmp_path / "hyp.trn", hypotheses)
    expected = run_sclite(find_sclite(), ref, hyp)
    scores = re.findall(r"^Scores: .* (\d+) (\d+) (\d+) (\d+)$", expected, flags=re.MULTILINE)
    ours = [
        tuple(map(str, count(align(r.tokens, h.tokens))))
        for r, h in zip(references, hypotheses, strict=True)
    ]
    assert scores == ours


def test_debian_command_and_path_agree():
    if shutil.which("sctk") is None:
        pytest.skip("Debian's sctk is not installed")
    listing = subprocess.run(["dpkg", "-L", "sctk"], capture_output=True, text=True).stdout
    assert find_sclite() in listing or shutil.which("sclite")


def test_weights_differ_from_plain_edit_distance():
    # Two substitutions cost 8, one deletion and one insertion 6.
    assert count(align(["a", "b"], ["b", "a"])) == (1, 0, 1, 1)
    assert count(align(["a", "b", "c"], [])) == (0, 0, 3, 0)
    assert count(align([], ["a"])) == (0, 0, 0, 1)
    assert count(align(["A"], ["a"])).errors == 0
