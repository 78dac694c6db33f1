import numpy as np
import pytest
from matplotlib.colors import to_hex

from espnet_smop.results.decodes import Score
from espnet_smop.results.expert_usage import Usage
from espnet_smop.results.figures import layer_usage, noise_curves, significance


@pytest.mark.parametrize(("difference", "colour"), [(-0.04, "#9ecae9"), (0.04, "#f7c28f")])
def test_a_difference_that_rounds_to_nothing_keeps_its_direction(difference, colour):
    [ax] = significance(["A", "B"], {(1, 0): (difference, True)}, "WER").axes
    assert to_hex(ax.patches[0].get_facecolor()) == colour
    assert [t.get_text() for t in ax.texts] == ["+0.0*"]


def test_an_interval_that_rounding_moved_past_its_rate_is_drawn(tmp_path):
    score = Score(tmp_path, ["s"], ["u"], [1], [10], [])
    score.interval = (0.10000000000000002, 0.11)
    [ax] = noise_curves({"A": {5.0: score}}, {"A": score}, "WER (%)").axes
    assert ax.get_ylabel() == "WER (%)"


def test_layers_have_a_row_and_views_a_panel():
    counts = np.array([[3, 1, 0], [0, 1, 3]])
    usages = [Usage(f"layer {n}", v, (n + 1) * counts) for v in ("asr", "avsr") for n in range(4)]
    panels = [ax for ax in layer_usage(usages).axes if ax.images]
    assert [ax.get_title() for ax in panels] == ["asr", "avsr"]
    for ax in panels:
        np.testing.assert_allclose(ax.images[0].get_array(), [[37.5, 25, 37.5]] * 4)
