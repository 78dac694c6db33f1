"""Checkpoints that contain only what was trained, not the frozen base models."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import nn

from espnet_smop.base_model import frozen_keys, saved_with_experiment_keys


class TrainedState(nn.Module):
    """A module whose state dict leaves its frozen base models out.

    ESPnet's trainer, resuming, model averaging and ``--init_param`` all go through ``state_dict``
    and ``load_state_dict``, so overriding these two makes them work on trained parameters only.
    """

    def state_dict(self, *args, **kwargs) -> dict[str, torch.Tensor]:
        """Return trained parameters and buffers, without those of frozen base models."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        for name in frozen_keys(self):
            state.pop(prefix + name, None)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False
    ):
        """Load what :meth:`state_dict` returned.

        Keys are checked even with ``strict=False``, which ESPnet passes at inference: a projector
        that silently keeps its random values is never wanted.

        Raises:
            RuntimeError: keys are missing or unexpected, or shapes differ; lists them.
        """
        expected = self.state_dict()
        mismatched = [
            f"{name} (checkpoint {tuple(value.shape)}, model {tuple(expected[name].shape)})"
            for name, value in sorted(state_dict.items())
            if name in expected and value.shape != expected[name].shape
        ]
        problems = {
            "missing": sorted(expected.keys() - state_dict.keys()),
            "unexpected": sorted(state_dict.keys() - expected.keys()),
            "of another shape": mismatched,
        }
        if any(problems.values()):
            listed = "; ".join(f"{kind}: {_shorten(n)}" for kind, n in problems.items() if n)
            raise RuntimeError(
                f"the checkpoint does not fit the model, {listed}. Use the config.yaml in the "
                "checkpoint's directory"
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def to(self, *args, **kwargs) -> Self:
        """Move everything to a device; change the dtype of trained parameters only."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None:
            super().to(device=device, non_blocking=non_blocking)
        if dtype is not None:
            trained = self.state_dict().keys() - saved_with_experiment_keys(self)
            for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
                if name in trained and tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
        return self


def _shorten(names: list[str], limit: int = 8) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
