"""Decoding at several noise levels at once: inputs without noise are encoded once."""

import copy
import logging
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from espnet_smop.decoder.abs_decoder import Hypothesis
from espnet_smop.inference import AVSRSpeech2Text
from espnet_smop.modality import FRAME_RATE, MODALITIES, SAMPLE_RATE
from espnet_smop.model import Encoded
from espnet_smop.results.costs import DecodingCosts

Batch = dict[str, torch.Tensor]
"""Inputs and their lengths by name, as collated."""


class NoiseLevel(NamedTuple):
    """A signal-to-noise ratio, or clean speech.

    Attributes:
        name: ``clean``, or ``snr`` and the ratio as written, such as ``snr-5``.
        snr: the ratio in dB; None for clean speech.
    """

    name: str
    snr: float | None


def noise_level(text: str) -> NoiseLevel:
    """Parse a ratio in dB, ``clean``, ``none`` or an empty string.

    Raises:
        ValueError: it is none of these.
    """
    if text.lower() in ("", "none", "clean"):
        return NoiseLevel("clean", None)
    try:
        return NoiseLevel(f"snr{text}", float(text))
    except ValueError:
        raise ValueError(f"snr is '{text}', expected a ratio in dB, or clean") from None


class InputsAtLevels:
    """Prepares utterances, read once, at several noise levels.

    Example::

        inputs = InputsAtLevels({"clean": preprocess, "snr0": noisy_preprocess}, collate)
        dataset = ESPnetDataset(files, preprocess=inputs.prepare)
        DataLoader(dataset, collate_fn=inputs.collate)

    Args:
        preprocess: level → the preprocessor that adds its noise; None leaves the data unchanged.
        collate: pads utterances into a batch.
    """

    def __init__(self, preprocess: Mapping[str, Callable | None], collate: Callable):
        self._preprocess = preprocess
        self._collate = collate

    def prepare(self, uid: str, data: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return level → the utterance with its noise."""
        return {
            # A preprocessor may work in place.
            level: data if preprocess is None else preprocess(uid, copy.deepcopy(data))
            for level, preprocess in self._preprocess.items()
        }

    def collate(
        self, utterances: Sequence[tuple[str, dict[str, dict[str, Any]]]]
    ) -> tuple[list[str], dict[str, Batch]]:
        """Return ids, and level → the inputs that differ from the previous level's."""
        uids, before, changes = [], {}, {}
        for level in self._preprocess:
            uids, batch = self._collate([(uid, data[level]) for uid, data in utterances])
            changes[level] = _changes(before, batch)
            before = batch
        return uids, changes


def _changes(before: Batch, batch: Batch) -> Batch:
    changed = {}
    for modality in MODALITIES.values():
        names = (modality.data_name, f"{modality.data_name}_lengths")
        if names[0] not in batch:
            continue
        if not all(name in before and torch.equal(before[name], batch[name]) for name in names):
            changed |= {name: batch[name] for name in names}
    return changed


@dataclass(frozen=True)
class Decoded:
    """A batch of utterances, decoded at one level.

    Attributes:
        level: its name.
        uids: ids of the utterances.
        nbest: n-best list of each.
        costs: time and memory.
    """

    level: str
    uids: list[str]
    nbest: list[list[Hypothesis]]
    costs: DecodingCosts


def decode_at_levels(
    speech2text: AVSRSpeech2Text, batches: Iterable[tuple[list[str], dict[str, Batch]]]
) -> Iterator[Decoded]:
    """Decode each batch at each level.

    A modality is encoded at the first level, and again where its input changes. Only one batch's
    features are in memory, and the video's are shared by all levels.

    Args:
        speech2text: the model.
        batches: as `InputsAtLevels.collate` returns them.
    """
    start_loading = time.perf_counter()
    for uids, changes in batches:
        loading = time.perf_counter() - start_loading
        features, batch = _Features(speech2text), {}
        for level, inputs in changes.items():
            batch |= inputs
            samples = _duration_in_samples(batch)
            # ESPnet's calculate_rtf.py pairs this line and that of the best hypotheses
            logging.info("speech length: %d", samples)
            features.update(inputs)
            start, tokens = time.perf_counter(), speech2text.media_tokens
            nbest = speech2text.search(features.encoded)
            search = time.perf_counter() - start
            logging.info("best hypo: %s", " | ".join(n[0].text for n in nbest))
            costs = DecodingCosts(
                len(uids),
                samples / SAMPLE_RATE,
                loading + sum(features.seconds.values()) + search,
                *_peak_memory(speech2text.device),
                task=speech2text.view.task,
                rates=dict(speech2text.view.rates),
                media_tokens=speech2text.media_tokens - tokens,
            )
            yield Decoded(level, uids, nbest, costs)
        start_loading = time.perf_counter()


class _Features:
    """Features of a batch.

    Attributes:
        encoded: the features.
        seconds: modality → time that its encoder took.
    """

    def __init__(self, speech2text: AVSRSpeech2Text):
        self._speech2text = speech2text
        self.encoded: Encoded = ({}, {}, {})
        self.seconds: dict[str, float] = {}

    def update(self, inputs: Batch) -> None:
        """Encode the modalities that have new inputs, or have not been encoded yet."""
        for modality in self._speech2text.view.modalities:
            if modality in self.seconds and MODALITIES[modality].data_name not in inputs:
                continue
            for part in self.encoded:
                part.pop(modality, None)  # free the memory before the new ones need it
            start = time.perf_counter()
            encoded = self._speech2text.encode(inputs, modalities=[modality])
            if self._speech2text.device.startswith("cuda"):
                torch.cuda.synchronize()
            self.seconds[modality] = time.perf_counter() - start
            for part, new in zip(self.encoded, encoded, strict=True):
                part.update(new)


def _duration_in_samples(batch: Batch) -> int:
    """Return the total duration of a batch in samples at 16 kHz."""
    if "speech_lengths" in batch:
        return int(batch["speech_lengths"].sum())
    return int(batch["video_lengths"].sum()) * SAMPLE_RATE // FRAME_RATE


def _peak_memory(device: str) -> tuple[float, str]:
    """Return the peak memory in MiB, and whether it is that of the ``GPU`` or the ``process``."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20, "GPU"
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 2**10, "process"
