import numpy as np
import pytest

from espnet_smop.results.expert_usage import Usage


def test_shares_of_counted_choices():
    # Five tokens of which the last is padding (3 experts: index 3).
    usage = Usage.of("audio", "audio", np.array([[0, 1], [0, 2], [2, 0], [0, 1], [3, 3]]), 3)
    assert usage.tokens == 4
    assert usage.shares == pytest.approx(np.array([[3, 0, 1], [1, 2, 1]]) / 4)
    assert usage.load == pytest.approx(np.array([4, 2, 2]) / 8)
    assert usage.imbalance == pytest.approx(1.5)
    # log2: 1/2, 1/4, 1/4 have 1.5 bits of at most log2(3).
    assert usage.evenness == pytest.approx(1.5 / np.log2(3))
    assert usage.first_evenness == pytest.approx(
        (0.75 * np.log(4 / 3) + 0.25 * np.log(4)) / np.log(3)
    )
    twice = usage + usage
    assert twice.tokens == 8
    assert twice.shares == pytest.approx(usage.shares)


def test_extremes():
    even = Usage("joint", "video", np.array([[5, 5, 5, 5]]))
    assert (even.evenness, even.imbalance) == pytest.approx((1, 1))
    collapsed = Usage("joint", "video", np.array([[9, 0, 0, 0]]))
    assert (collapsed.evenness, collapsed.imbalance) == pytest.approx((0, 4))
    with pytest.raises(ValueError, match="cannot be added"):
        even + Usage("joint", "audio", np.array([[1, 1, 1, 1]]))
