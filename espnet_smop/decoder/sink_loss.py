"""Keeps tokens other than the first from becoming attention sinks (arXiv 2510.22603).

Sinks are tokens that draw attention whatever they mean, and their hidden states resemble that of
BOS. A sink carries no speech, which matters where few tokens do.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def sink_loss(hidden_states: Sequence[torch.Tensor], others: torch.Tensor) -> torch.Tensor:
    """Return the mean squared cosine between BOS and other tokens, a scalar.

    Args:
        hidden_states: of the inner layers, each ``(B, T, E)``; BOS comes first.
        others: ``(B, T)``, the tokens that are compared with BOS.
    """
    cosines = [
        F.cosine_similarity(h[:, :1].float(), h.float(), dim=-1)[others] for h in hidden_states
    ]
    return torch.stack(cosines).square().mean()
