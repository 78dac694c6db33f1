"""Batches of similar lengths, limited in LLM tokens, video frames and text tokens.

ESPnet's ``numel`` sampler limits a sum of lengths, and ends a batch only after exceeding it. Here a
batch has three costs: the encoders' work and memory grow with the frames, the LLM's with its
positions (audio tokens, video tokens, prompt and text), the output layer's with the text. Each
batch therefore stays below a limit for each, padding included, on each of the processes that share
it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from espnet2.samplers.abs_sampler import AbsSampler

from espnet_smop.decoder.abs_decoder import AbsAVDecoder
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.modality import FRAME_RATE
from espnet_smop.projector.abs_projector import AbsProjector
from espnet_smop.views import View

_REMEDIES = {
    "tokens": "raise batch_bins",
    "frames": "raise batch_limits.frames",
    "text": "raise batch_limits.text",
}


@dataclass(frozen=True)
class Counts:
    """Lengths of utterances.

    Attributes:
        keys: ids of the N utterances.
        frames: durations in video frames (25 per second), ``(N,)``.
        text: tokens of the transcripts with EOS, ``(N,)``.
        tokens: positions of the LLM, ``(N,)``.
    """

    keys: list[str]
    frames: np.ndarray
    text: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(
        cls,
        frames: Mapping[str, int],
        text: Mapping[str, int],
        *,
        prefix: Callable[[np.ndarray], np.ndarray],
        readings: int = 1,
    ) -> "Counts":
        """Count LLM positions.

        Args:
            frames: utterance → duration in video frames, of its longer modality.
            text: utterance → tokens of its transcript, without EOS.
            prefix: maps durations in video frames ``(N,)`` to the positions before the text.
            readings: how often the LLM reads a text in a step, once for each view.

        Raises:
            ValueError: an utterance has no transcript.
        """
        keys = list(frames)
        missing = [key for key in keys if key not in text]
        if missing:
            raise ValueError(
                f"utterance {missing[0]} and {len(missing) - 1} more have no line in text: "
                "make the shape files again (stage 10)"
            )
        durations = np.array([frames[key] for key in keys], dtype=np.int64)
        texts = np.array([text[key] for key in keys], dtype=np.int64) + 1
        # EOS is predicted, but not fed
        return cls(keys, durations, texts, prefix(durations) + readings * (texts - 1))


def prefix_lengths(
    durations: np.ndarray,
    *,
    frontends: Mapping[str, AbsAVFrontend],
    projector: AbsProjector,
    decoder: AbsAVDecoder,
    steps: Sequence[Sequence[View]] | None = None,
) -> np.ndarray:
    """Count the LLM positions before the text: media tokens, BOS, prompt and delimiters.

    Args:
        durations: of utterances in video frames, ``(N,)``.
        frontends: of the model, by modality.
        projector: of the model.
        decoder: of the model.
        steps: the views of each training step (`Views.steps`). Those of a step add up, and the
            step with most positions counts. None is one view of all modalities.

    Returns:
        ``(N,)``.
    """

    def of_view(modalities: Collection[str], rates: Mapping[str, int]) -> np.ndarray:
        positions = np.full_like(durations, decoder.prompt_length(tuple(modalities)))
        for modality in modalities:
            # Rounded first: rates such as 100 / 3 are not exact in floating point.
            frames = np.ceil((durations * frontends[modality].frame_rate / FRAME_RATE).round(6))
            frames = torch.from_numpy(frames.astype(np.int64))
            positions += projector.num_tokens_at(modality, frames, rates).numpy()
        return positions

    if steps is None:
        return of_view(frontends, {})
    return np.max([sum(of_view(v.modalities, v.rates) for v in step) for step in steps], axis=0)


class TokenBatchSampler(AbsSampler):
    """Batches of utterances of similar duration, each below all limits.

    No batch exceeds the limits, so that memory is known beforehand: an utterance that exceeds a
    limit by itself is an error before training begins.

    In distributed training ESPnet distributes a batch, ``batch[rank::world_size]``. Limits apply to
    all processes together, like ESPnet's ``batch_bins``; each process gets an equal share of them,
    and of the utterances where possible. All processes make the same number of steps.

    Args:
        counts: per-utterance lengths.
        limits: maximum size of a batch, i.e. its number of rows times its longest utterance: in
            ``tokens``, and optionally in ``frames`` and ``text``.
        world_size: number of processes.

    Raises:
        ValueError: an utterance exceeds a limit, or there are fewer utterances than processes.
    """

    def __init__(self, counts: Counts, limits: Mapping[str, int], *, world_size: int = 1):
        self.counts = counts
        self.limits = dict(limits)
        self.world_size = world_size
        if len(counts.keys) < world_size:
            raise ValueError(
                f"{len(counts.keys)} utterances are not enough for {world_size} processes"
            )
        for name, limit in self._shares().items():
            values = getattr(counts, name)
            longest = int(values.argmax())
            if values[longest] > limit:
                beyond = int((values > limit).sum())
                per = f" for each of {world_size} processes" if world_size > 1 else ""
                raise ValueError(
                    f"utterance {counts.keys[longest]} has {values[longest]} {name}, but a batch "
                    f"takes {limit}{per} ({beyond} such utterances): {_REMEDIES[name]}, or drop "
                    "them (stage 4, --max_wav_duration)"
                )
        self.batches = self._batches()

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Iterate over batches, shortest utterances first; within one, longest first."""
        keys = self.counts.keys
        return (tuple(keys[i] for i in batch) for batch in self.batches)

    def __repr__(self) -> str:
        """Summarise the batches."""
        waste = ", ".join(f"{n} {100 * w:.1f} %" for n, w in self.padding_waste().items())
        return (
            f"{type(self).__name__}(N-batch={len(self)}, limits={self.limits}, "
            f"world_size={self.world_size}, padding: {waste})"
        )

    def padding_waste(self) -> dict[str, float]:
        """Return the share of padding among the frames and LLM tokens of all batches."""
        waste = {}
        for name in ("frames", "tokens"):
            values = getattr(self.counts, name)
            parts = [batch[r :: self.world_size] for batch in self.batches for r in self._ranks()]
            padded = sum(len(part) * int(values[part].max()) for part in parts if len(part))
            waste[name] = 1 - int(values.sum()) / padded
        return waste

    def _ranks(self) -> range:
        return range(self.world_size)

    def _shares(self) -> dict[str, int]:
        return {name: limit // self.world_size for name, limit in self.limits.items()}

    def _fits(self, batch: Sequence[int]) -> bool:
        rows = -(-len(batch) // self.world_size)
        return all(
            rows * int(getattr(self.counts, name)[batch].max()) <= limit
            for name, limit in self._shares().items()
        )

    def _batches(self) -> list[np.ndarray]:
        counts, world_size = self.counts, self.world_size
        # Equal durations are sorted by tokens, so that equal texts are neighbours.
        order = np.lexsort((counts.tokens, counts.frames))[::-1]
        shares = self._shares()
        values = {name: getattr(counts, name)[order] for name in shares}
        whole = len(order) - len(order) % world_size
        bounds, start, longest = [0], 0, dict.fromkeys(shares, 0)
        for row in range(0, whole, world_size):
            block = {
                n: max(longest[n], int(v[row : row + world_size].max())) for n, v in values.items()
            }
            rows = (row - start) // world_size + 1
            if row > start and any(rows * block[n] > shares[n] for n in shares):
                bounds.append(row)
                start = row
                block = {n: int(v[row : row + world_size].max()) for n, v in values.items()}
            longest = block
        batches = [order[a:b] for a, b in zip(bounds, [*bounds[1:], whole], strict=True)]
        if whole < len(order):
            batches[-1:] = self._with_rest(batches[-1], order[whole:])
        return batches[::-1]

    def _with_rest(self, last: np.ndarray, rest: np.ndarray) -> list[np.ndarray]:
        """Place the remaining shortest utterances, which are fewer than the processes."""
        joined = np.concatenate([last, rest])
        if self._fits(joined):
            return [joined]
        # Two of the shortest in a process, unless even these are too many.
        cut = len(last) - self.world_size
        parts = [joined[:cut], joined[cut:]] if cut else [joined]
        if not self._fits(parts[-1]):
            raise ValueError(
                f"{len(rest)} utterances are left over that cannot be shared by {self.world_size} "
                "processes within the limits of a batch: raise batch_bins and batch_limits"
            )
        return parts
