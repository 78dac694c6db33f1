"""Whisper's log-mel spectrogram, batched and on the model's device."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from espnet_smop.modality import SAMPLE_RATE

HOP = 160
_FFT = 400


class LogMel(nn.Module):
    """Log-mel spectrogram of Whisper (Radford et al. 2022, section 2.2).

    Equal to Hugging Face's ``WhisperFeatureExtractor``, but for a whole batch and on the model's
    device. Always float32: in bfloat16 the power spectrum loses the quiet bands.

    Args:
        num_mels: number of mel bands, 80 or (large-v3) 128.
    """

    def __init__(self, *, num_mels: int):
        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=1 + _FFT // 2,
            num_mel_filters=num_mels,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        # Not persistent: checkpoints do not need what can be recomputed.
        mel = torch.from_numpy(filters).float().T.contiguous()
        self.register_buffer("filters", mel, persistent=False)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)

    def forward(self, speech: torch.Tensor, lengths: torch.Tensor, samples: int) -> torch.Tensor:
        """Compute the spectrogram of each waveform, zero-padded to ``samples``.

        Args:
            speech: waveforms ``(B, N)``; samples beyond an utterance's length are ignored.
            lengths: number of samples ``(B,)``.
            samples: common length to cut or pad the waveforms to, a multiple of 160.

        Returns:
            ``(B, num_mels, samples / 160)``, float32.
        """
        with torch.autocast(speech.device.type, enabled=False):
            speech = F.pad(speech.float(), (0, max(0, samples - speech.shape[1])))[:, :samples]
            inside = torch.arange(samples, device=speech.device) < lengths[:, None]
            speech = torch.where(inside, speech, 0.0)
            spectrum = torch.stft(
                speech, _FFT, HOP, window=self.window.float(), return_complex=True
            )
            spectrum = spectrum[..., :-1]  # Whisper drops the last frame; (B, 201, frames)
            # Not as a sum over pairs, which takes longer than the Fourier transform on a CPU.
            power = spectrum.real.square() + spectrum.imag.square()
            mel = torch.clamp(self.filters.float() @ power, min=1e-10).log10()
            # Eight orders of magnitude below the utterance's own maximum is silence.
            mel = torch.maximum(mel, mel.amax(dim=(1, 2), keepdim=True) - 8.0)
            return (mel + 4.0) / 4.0
