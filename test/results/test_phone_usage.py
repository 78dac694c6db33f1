import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from espnet_smop.results.phone_usage import PhoneUsage, mutual_information
from espnet_smop.results.phones import CLASSES

N = 4


def usage(classes, experts):
    return PhoneUsage("audio", "audio", np.asarray(classes), np.eye(N)[experts])


def test_experts_that_follow_the_class_tell_all_of_it():
    classes = np.random.default_rng(0).choice(3, 2000, p=[0.5, 0.25, 0.25])
    found = usage(classes, (classes + 1) % N).first
    shares = np.bincount(classes) / 2000
    assert found.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
    assert found.entropy == pytest.approx(1.5, abs=0.02)
    assert found.information == pytest.approx(found.entropy)
    assert found.chance_high < 0.01
    assert found.tokens.tolist() == np.bincount(classes, minlength=len(CLASSES)).tolist()
    assert found.table[1].tolist() == [0, 0, found.tokens[1], 0]


def test_random_experts_tell_what_chance_does():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, len(CLASSES), 3000)
    above = 0
    for _ in range(20):
        found = usage(classes, rng.integers(0, N, 3000)).first
        assert 0 < found.information < 0.01
        assert 0 < found.chance < found.chance_high < 0.01
        # The bias of an estimate from independent tokens (Miller 1955)
        bias = (len(CLASSES) - 1) * (N - 1) / (2 * 3000 * np.log(2))
        assert found.chance == pytest.approx(bias, rel=0.05)
        above += found.information > found.chance_high
    assert above <= 4  # 1 in 20 is expected


def test_chance_knows_that_neighbours_are_alike():
    """Runs of ten tokens are ten times fewer independent ones."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 300).repeat(10)
    experts = rng.integers(0, N, 300).repeat(10)
    found = usage(classes, experts).first
    scattered = usage(rng.permutation(classes), rng.permutation(experts)).first
    assert found.chance > 5 * scattered.chance
    assert found.information < 2 * found.chance_high


def test_information_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    classes = rng.integers(0, len(CLASSES), 500)
    experts = (classes // 2 + rng.integers(0, 2, 500)) % N
    found = usage(classes, experts).first
    expected = mutual_info_score(classes, experts) / np.log(2)
    assert found.information == pytest.approx(expected)
    assert expected > 0.3


def test_weights_count_by_their_share():
    classes = np.array([0, 0, 6, 6])
    weights = np.array([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75], [0.25, 0.75]])
    half = PhoneUsage("joint", "video", classes[:2], weights[:2])
    both = half + PhoneUsage("joint", "video", classes[2:], weights[2:])
    assert both.weighted.table[[0, 6]].tolist() == [[1.5, 0.5], [0.5, 1.5]]
    # 1 bit minus the entropy of 3/4 and 1/4
    assert both.weighted.information == pytest.approx(1 - (2 - 0.75 * np.log2(3)))
    assert both.first.information == pytest.approx(1)
    with pytest.raises(ValueError, match="cannot be added"):
        both + PhoneUsage("joint", "audio", classes, weights)


def test_an_empty_table_tells_nothing():
    assert mutual_information(np.zeros((len(CLASSES), N))) == 0
