"""A projector of one's own: learned queries read each second of an utterance, as a Q-Former does.

BLIP-2 (Li et al. 2023) has such queries for a whole image. Here a second has its own, so that the
number of tokens grows with the utterance.
"""

import torch
from torch import nn

from espnet_smop.projector.abs_projector import AbsProjector, ProjectorOutput

_FRAMES_PER_SECOND = {"audio": 50, "video": 25}


class QFormerProjector(AbsProjector):
    """A fixed number of tokens for each second, of cross-attention to its frames.

    Args:
        input_sizes: modality → width of the encoder's features.
        output_size: width E of the LLM's embeddings.
        num_layers: modality → number of encoder layers; not used here.
        tokens_per_second: number of learned queries.
        hidden_size: width of queries and attention.
        num_heads: attention heads.
    """

    def __init__(
        self,
        input_sizes: dict[str, int],
        output_size: int,
        num_layers: dict[str, int],
        *,
        tokens_per_second: int = 8,
        hidden_size: int = 256,
        num_heads: int = 4,
    ):
        super().__init__()
        self.tokens_per_second = tokens_per_second
        self.inputs = nn.ModuleDict()
        self.positions = nn.ParameterDict()
        self.queries = nn.ParameterDict()
        for modality, size in input_sizes.items():
            frames = _FRAMES_PER_SECOND[modality]
            self.inputs[modality] = nn.Linear(size, hidden_size)
            self.positions[modality] = nn.Parameter(0.02 * torch.randn(frames, hidden_size))
            self.queries[modality] = nn.Parameter(torch.randn(tokens_per_second, hidden_size))
        self.attention = nn.MultiheadAttention(hidden_size, num_heads, batch_first=True)
        self.output = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, output_size))

    def num_tokens(self, modality: str, frames: torch.Tensor) -> torch.Tensor:
        """Return the queries of all seconds that have begun."""
        per_second = _FRAMES_PER_SECOND[modality]
        return (frames + per_second - 1) // per_second * self.tokens_per_second

    def forward(
        self,
        features: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        layers: dict[str, list[torch.Tensor]] | None = None,
    ) -> ProjectorOutput:
        """Project the features ``(B, T, D)`` of every modality to tokens ``(B, T', E)``."""
        tokens = {m: self._read(m, x, lengths[m]) for m, x in features.items()}
        return ProjectorOutput(tokens, {m: self.num_tokens(m, lengths[m]) for m in features})

    @torch.no_grad()
    def init_output_rms(self, rms: torch.Tensor) -> None:
        """Scale the initial tokens to this root mean square; for training with a warm start."""
        linear = self.output[1]  # its input has a root mean square of 1
        nn.init.normal_(linear.weight, std=float(rms) / linear.in_features**0.5)
        nn.init.zeros_(linear.bias)

    def _read(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        positions, queries = self.positions[modality], self.queries[modality]
        x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % len(positions)))  # to whole seconds
        inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B, T)
        x = torch.where(inside[..., None], x, 0).to(queries.dtype)
        # Of each second of each utterance: (B · S, frames, H), and which frames are real
        seconds = self.inputs[modality](x).unflatten(1, (-1, len(positions))).flatten(0, 1)
        seconds = seconds + positions
        real = inside.unflatten(1, (-1, len(positions))).flatten(0, 1)
        padding = real.logical_not() & real.any(1, keepdim=True)  # attending nothing gives NaN
        queries = queries.expand(len(seconds), -1, -1)
        read, _ = self.attention(queries, seconds, seconds, key_padding_mask=padding)
        tokens = self.output(read + queries) * real.any(1)[:, None, None]
        return tokens.reshape(len(x), -1, tokens.shape[-1])  # (B, T', E)
