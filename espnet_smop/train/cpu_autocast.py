"""``use_amp`` on CPUs: ESPnet's mixed precision is for GPUs only."""

import contextlib
import logging
from collections.abc import Iterator

import torch
from torch import nn


def has_bfloat16() -> bool:
    """Return whether the CPU multiplies matrices in bfloat16 (AVX-512 BF16 or AMX)."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


@contextlib.contextmanager
def cpu_autocast(model: nn.Module) -> Iterator[None]:
    """Run a model's forward in bfloat16 within this context, if the CPU supports it.

    An LLM's training step then takes less than half the time. Other CPUs would emulate bfloat16
    and take longer, so they stay in float32.

    Args:
        model: on the CPU; gradients and the optimizer are in the parameters' precision.
    """
    if not has_bfloat16():
        logging.info("use_amp: this CPU has no bfloat16 instructions, so training uses float32")
        yield
        return
    # Only the forward pass: within autocast, the backward pass would round what was computed in
    # float32 on purpose, such as routers and CTC.
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    try:
        yield
    finally:
        del model.forward
