"""An audio frontend of another family: HuBERT (Hsu et al. 2021) from Hugging Face, frozen."""

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertConfig, HubertModel

from espnet_smop.base_model import as_frozen, base_dtype, freeze, locate, on_meta
from espnet_smop.frontend.abs_frontend import AbsAVFrontend

_SAMPLES_PER_FRAME = 320
_MIN_SAMPLES = 400  # what the first frame sees


class HubertFrontend(AbsAVFrontend):
    """A HuBERT of any size, with about 50 output frames per second.

    Args:
        model: directory or hub id, e.g. ``facebook/hubert-base-ls960``.
        dtype: of the weights; null is bfloat16 where CUDA is available.
    """

    def __init__(self, model: str, *, dtype: str | None = None):
        super().__init__()
        path = locate(model)
        if on_meta():  # a dry run needs only the shapes
            encoder = HubertModel(HubertConfig.from_pretrained(path))
        else:
            encoder = HubertModel.from_pretrained(path, dtype=base_dtype(dtype))
        self.encoder = freeze(encoder)

    def output_size(self) -> int:
        """Return the width D of the features."""
        return self.encoder.config.hidden_size

    @property
    def frame_rate(self) -> float:
        """Output frames per second."""
        return 16000 / _SAMPLES_PER_FRAME

    def forward(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode waveforms ``(B, samples)`` into features ``(B, T, D)`` and lengths ``(B,)``."""
        with as_frozen(input.device, adapters=False):
            # Each alone: the group normalisation of HuBERT BASE would count a batch's padding.
            convolved = [
                self._convolve(x[:n]) for x, n in zip(input, input_lengths.tolist(), strict=True)
            ]
            lengths = torch.tensor([len(x) for x in convolved], device=input.device)
            x = self.encoder.feature_projection(pad_sequence(convolved, batch_first=True))
            inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B, T)
            x = self.encoder.encoder(x, attention_mask=inside).last_hidden_state
            return x * inside[..., None], lengths

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.pad(x, (0, max(0, _MIN_SAMPLES - len(x))))
        return self.encoder.feature_extractor(x[None].to(self.encoder.dtype))[0].T  # (T, C)
