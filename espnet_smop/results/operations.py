"""Floating-point operations of recognising utterances, counted while the model runs."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_smop.model import ESPnetAVSRModel


@torch.no_grad()
def count_flops(model: ESPnetAVSRModel, batch: dict[str, torch.Tensor]) -> dict[str, int]:
    """Count the floating-point operations of a forward pass over a batch, part by part.

    Matrix products, convolutions and attention are counted, a multiply-add as two operations. The
    LLM reads media tokens, prompt and the reference text once: what greedy decoding costs with a
    cache; a beam of B costs the text's part B times. Utterances should come one by one, since
    padding counts.

    Args:
        model: in evaluation mode.
        batch: as for its ``forward``.

    Returns:
        Operations of ``audio encoder`` and ``video encoder``, as far as the model has them,
        ``projector`` and ``LLM``.
    """
    # Fused attention kernels are not counted on every device; plain matrix products are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**batch)
    by_module = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    parts = {f"{modality} encoder": f"frontends.{modality}" for modality in model.frontends}
    parts |= {"projector": "projector", "LLM": "decoder"}
    root = type(model).__name__
    return {part: _within(f"{root}.{module}", by_module) for part, module in parts.items()}


def _within(module: str, by_module: dict[str, int]) -> int:
    """Return the operations of a module, or of the modules inside it if it was not called.

    An encoder whose layers are fused runs by its method ``layers``, which no hook sees.
    """
    if module in by_module:
        return by_module[module]
    inner = [name for name in by_module if name.startswith(f"{module}.")]
    outermost = [n for n in inner if not any(n.startswith(f"{other}.") for other in inner)]
    return sum(by_module[name] for name in outermost)
