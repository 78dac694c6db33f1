"""What a projector of a user's own has without defining it."""

import pytest
import torch

from espnet_smop.projector.abs_projector import AbsProjector, ProjectorOutput


class Halves(AbsProjector):
    """Halves the frames, or divides them by another rate."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, features, lengths, layers=None):
        return ProjectorOutput({m: self.linear(x) for m, x in features.items()}, lengths)

    def num_tokens(self, modality, frames, rate=2):
        return frames // rate


def test_defaults():
    projector = Halves()
    lengths = {"audio": torch.tensor([2])}
    out = projector({"audio": torch.zeros(1, 2, 3)}, lengths)
    assert (out.aux_loss, out.stats, out.routings) == (0, {}, {})
    assert projector.num_active_parameters() == 16
    assert projector.fingerprints() == {}
    assert (projector.needs_layers, projector.rates) == (frozenset(), {})
    frames = torch.tensor([[12, 8]])
    assert projector.num_tokens_at("audio", frames, {}).tolist() == [[6, 4]]
    assert projector.num_tokens_at("audio", frames, {"audio": 4, "video": 3}).tolist() == [[3, 2]]


def test_the_warm_start_needs_its_own_method():
    with pytest.raises(ValueError, match="Halves does not implement `init_output_rms`"):
        Halves().init_output_rms(torch.tensor(1.0))
