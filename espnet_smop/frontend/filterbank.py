"""The audio features that AV-HuBERT was trained on: log filterbanks, stacked by four frames."""

import numpy as np
import torch
from torch.nn import functional as F

from espnet_smop.modality import SAMPLE_RATE

_WINDOW = 400
_HOP = 160
_FFT = 512
_BANDS = 26
_STACK = 4


def _filters() -> torch.Tensor:
    """Triangular filters ``(257, 26)`` between FFT bins, in the HTK mel scale."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)
    edges = np.floor((_FFT + 1) * hertz / SAMPLE_RATE)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(_FFT // 2 + 1)[:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None)).float()


def stacked_filterbanks(
    speech: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute 26 log mel energies every 10 ms, stack four, and normalise each stacked frame.

    Args:
        speech: 16 kHz waveforms ``(B, samples)`` of any scale (normalisation removes it).
        lengths: samples of each ``(B,)``.

    Returns:
        ``(B, T, 104)`` at 25 frames per second, zero beyond an utterance's end, and lengths
        ``(B,)``.
    """
    device = speech.device
    with torch.autocast(device.type, enabled=False):
        speech = speech.float()
        emphasised = torch.cat([speech[:, :1], speech[:, 1:] - 0.97 * speech[:, :-1]], dim=1)
        inside = torch.arange(speech.shape[1], device=device) < lengths[:, None]
        emphasised = torch.where(inside, emphasised, 0.0)
        # The last window is padded with zeros, and so is the last stack.
        windows = 1 + (lengths - _WINDOW).clamp(min=0).add(_HOP - 1).div(
            _HOP, rounding_mode="floor"
        )
        frames = (windows + _STACK - 1).div(_STACK, rounding_mode="floor")
        total = int(frames.max()) * _STACK
        needed = (total - 1) * _HOP + _WINDOW
        emphasised = F.pad(emphasised, (0, max(0, needed - emphasised.shape[1])))[:, :needed]
        # (B, windows, 257)
        spectrum = torch.fft.rfft(emphasised.unfold(1, _WINDOW, _HOP), n=_FFT)
        power = torch.view_as_real(spectrum).square().sum(-1) / _FFT
        energies = power @ _filters().to(device)
        # For exact silence, the reference takes the logarithm of this value instead of zero.
        logs = torch.where(energies > 0, energies, torch.finfo(torch.float64).eps).log()
        real = torch.arange(total, device=device) < windows[:, None]
        logs = torch.where(real[..., None], logs, 0.0)
        stacked = logs.unflatten(1, (-1, _STACK)).flatten(2)  # (B, T, 104)
        normalised = F.layer_norm(stacked, stacked.shape[-1:])
        present = torch.arange(stacked.shape[1], device=device) < frames[:, None]
        return torch.where(present[..., None], normalised, 0.0), frames
