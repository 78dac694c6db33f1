"""The scorer against jiwer and sclite on random pairs, and properties of what training computes."""

import random

import jiwer
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from espnet_smop.results.alignment import align, count
from espnet_smop.results.sclite import find_sclite, run_sclite
from espnet_smop.results.sclite_report import report
from espnet_smop.results.trn import Utterance, format_line
from espnet_smop.train.noise import mix

_WORDS = ["a", "b", "cc", "d'e", "été", "42", "日本", "zz"]
_TOKENS = st.lists(st.sampled_from(_WORDS), max_size=12)


def draw(pairs, seed):
    chance = random.Random(seed)
    references, hypotheses = [], []
    for _ in range(pairs):
        words = _WORDS[: chance.randint(1, len(_WORDS))]
        references.append([chance.choice(words) for _ in range(chance.randint(1, 15))])
        hypotheses.append([chance.choice(words) for _ in range(chance.randint(0, 15))])
    return references, hypotheses


def compare_with_jiwer(pairs, seed):
    """sclite weighs substitutions 4 and gaps 3, so it may count more errors, never fewer."""
    more = 0
    for reference, hypothesis in zip(*draw(pairs, seed), strict=True):
        ours = count(align(reference, hypothesis))
        theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
        fewest = theirs.substitutions + theirs.deletions + theirs.insertions
        assert ours.reference == len(reference)
        assert ours.correct + ours.substitutions + ours.insertions == len(hypothesis)
        assert ours.errors >= fewest
        weight = 4 * ours.substitutions + 3 * (ours.deletions + ours.insertions)
        assert weight <= 4 * theirs.substitutions + 3 * (theirs.deletions + theirs.insertions)
        more += ours.errors > fewest
    return more


def compare_with_sclite(pairs, seed, directory):
    files, lists = {}, {}
    for name, texts in zip(("ref", "hyp"), draw(pairs, seed), strict=True):
        lists[name] = [Utterance(f"s{i % 9}", f"u{i:05d}", t) for i, t in enumerate(texts)]
        files[name] = directory / f"{name}.trn"
        files[name].write_text("".join(format_line(u) + "\n" for u in lists[name]))
    theirs = run_sclite(find_sclite(), files["ref"], files["hyp"])
    ours = report(lists["ref"], lists["hyp"], "hyp.trn")
    kept = [
        sorted(x.strip() for x in text.splitlines() if x.startswith(("Scores:", "id:", "|")))
        for text in (ours, theirs)
    ]
    assert kept[0] == kept[1]
    assert sum(x.startswith("Scores:") for x in kept[0]) == pairs


def test_some_pairs_as_jiwer():
    compare_with_jiwer(300, 0)


@pytest.mark.skipif(find_sclite() is None, reason="sclite is not installed")
def test_some_pairs_as_sclite(tmp_path):
    compare_with_sclite(300, 0, tmp_path)


@pytest.mark.long
def test_ten_thousand_pairs_as_jiwer():
    print(f"{compare_with_jiwer(10000, 1)} pairs with more errors by sclite's weights")


@pytest.mark.long
@pytest.mark.skipif(find_sclite() is None, reason="sclite is not installed")
def test_ten_thousand_pairs_as_sclite(tmp_path):
    compare_with_sclite(10000, 1, tmp_path)


def weight(pairs):
    """What sclite minimises: 4 for a substitution, 3 for an insertion or a deletion."""
    counts = count(pairs)
    return 4 * counts.substitutions + 3 * (counts.insertions + counts.deletions)


@settings(max_examples=100, deadline=None)
@given(_TOKENS, _TOKENS)
@example(["a", "a", "cc", "a", "b", "a"], ["cc", "b", "d'e", "a", "a"])
def test_an_alignment_holds_both_sides_in_order(reference, hypothesis):
    pairs = align(reference, hypothesis)
    assert [r for r, _ in pairs if r] == reference
    assert [h for _, h in pairs if h] == hypothesis
    assert count(align(reference, reference)).errors == 0
    # Of alignments with equal weight sclite may take another one the other way round: only the
    # weight is symmetric, not the number of errors.
    assert weight(align(hypothesis, reference)) == weight(pairs)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2000),
    st.floats(-40, 40),
    st.floats(1e-4, 1e3),
    st.integers(0, 2**31),
)
def test_noise_has_the_ratio_that_is_asked_for(length, snr, gain, seed):
    rng = np.random.default_rng(seed)
    speech = rng.normal(size=length)
    noise = gain * rng.normal(size=length)
    added = mix(speech, noise, snr) - speech
    found = 10 * np.log10(np.sum(speech**2) / np.sum(added**2))
    assert found == pytest.approx(snr, abs=1e-3)
    silent = np.zeros(length)
    assert mix(silent, noise, snr) is silent and mix(speech, silent, snr) is speech
