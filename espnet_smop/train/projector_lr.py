"""A separate learning rate for the projector."""

from typing import Any

import torch

from espnet_smop.model import ESPnetAVSRModel

_MARK = "is_projector"


def scale_projector_lr(
    optimizer: torch.optim.Optimizer, model: ESPnetAVSRModel, scale: float
) -> None:
    """Let the optimizer train the projector with a multiple of its learning rate.

    The warm start trains the projector with the full learning rate. The first gradients through the
    LLM are large; a smaller rate keeps them from undoing the warm start. Schedulers set the same
    learning rate for all parameters, so it is scaled at each step and restored afterwards.

    Args:
        optimizer: newly built; the projector's parameters get groups of their own.
        model: whose parameters it trains.
        scale: factor of the learning rate after the warm start.
    """
    own = set(model.projector.parameters())
    for group in list(optimizer.param_groups):
        theirs = [p for p in group["params"] if p in own]
        group["params"] = [p for p in group["params"] if p not in own]
        group[_MARK] = False
        optimizer.add_param_group({**group, "params": theirs, _MARK: True})
    plain: list[Any] = []

    def before(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        plain[:] = [group["lr"] for group in optimizer.param_groups]
        if model.warm_start is None or model.warm_start.is_over():
            for group in optimizer.param_groups:
                if group[_MARK]:
                    group["lr"] = group["lr"] * scale

    def after(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        for group, lr in zip(optimizer.param_groups, plain, strict=True):
            group["lr"] = lr

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
