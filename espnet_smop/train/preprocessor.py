"""Turns an utterance's data into the model's input."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from espnet_smop.modality import FRAME_RATE, MODALITIES, SAMPLE_RATE
from espnet_smop.train.abs_preprocessor import AbsAVPreprocessor
from espnet_smop.train.augmentation import adaptive_time_mask, crop, horizontal_flip
from espnet_smop.train.noise import NoiseAdder

VIDEO_MEAN, VIDEO_STD = 0.421, 0.165
"""Of grey mouth crops in [0, 1], as in the training of the published AV-HuBERT weights."""
_BY_FEATS_NAME = {modality.feats_name: name for name, modality in MODALITIES.items()}
_COPIES = f"{'|'.join(MODALITIES)}: 1 or more"


def normalise_speech(speech: np.ndarray) -> np.ndarray:
    """Give a waveform ``(samples,)`` zero mean and unit (biased) variance."""
    return ((speech - speech.mean()) / np.sqrt(speech.var() + 1e-8)).astype(np.float32)


def normalise_video(video: np.ndarray) -> np.ndarray:
    """Map uint8 grey frames ``(T, H, W)`` to float32 of about zero mean and unit variance."""
    scale = np.float32(1 / (255 * VIDEO_STD))
    return video.astype(np.float32) * scale - np.float32(VIDEO_MEAN / VIDEO_STD)


class AVSRPreprocessor(AbsAVPreprocessor):
    """Tokenises the text; crops, augments and normalises the video; adds noise to the speech.

    Augmentation applies in training only.

    Args:
        train: True for training batches, False for evaluation.
        encode_text: maps a sentence to token ids, without BOS and EOS.
        flip_probability: probability of mirroring a video.
        random_crop: crop the 88 x 88 square at a random position (training).
        video_mask: adaptive time masking, ``{max_width, stride}`` in seconds; None disables it.
        speech_mask: the same for the waveform.
        feats_mask: the same for precomputed features of either modality, ``max_width`` and
            ``stride`` in their frames (Whisper has 50 a second, AV-HuBERT 25).
        feats_copies: modality → number of differently augmented copies in the precomputed features
            of a training utterance, such as ``{audio: 3, video: 2}``. A step reads one at random.
        speech_normalise: zero mean and unit variance per utterance, after adding noise.
        video_multiple: cut videos to a multiple of this many frames, as the public Llama-AVSR code
            does before it encodes and downsamples.
        noise: arguments of :class:`~espnet_smop.train.noise.NoiseAdder`; None adds none. In
            evaluation it is deterministic per utterance.
        noise_in_validation: add noise in validation as well.

    Raises:
        ValueError: a value is out of its range, or a mask or the copies have an unknown key.
    """

    def __init__(
        self,
        train: bool,
        encode_text: Callable[[str], list[int]] | None = None,
        *,
        flip_probability: float = 0.5,
        random_crop: bool = True,
        video_mask: dict[str, float] | None = {"max_width": 0.4, "stride": 1.0},  # noqa: B006
        speech_mask: dict[str, float] | None = {"max_width": 0.4, "stride": 1.0},  # noqa: B006
        feats_mask: dict[str, int] | None = None,
        feats_copies: Mapping[str, int] | None = None,
        speech_normalise: bool = True,
        video_multiple: int = 1,
        noise: dict[str, Any] | None = None,
        noise_in_validation: bool = False,
    ):
        super().__init__(train)
        if not 0 <= flip_probability <= 1:
            raise ValueError(f"flip_probability is {flip_probability}, expected 0 to 1")
        if not isinstance(video_multiple, int) or video_multiple < 1:
            raise ValueError(f"video_multiple is {video_multiple}, expected 1 or more")
        masks = {"video_mask": video_mask, "speech_mask": speech_mask, "feats_mask": feats_mask}
        for name, mask in masks.items():
            if mask is not None and not _is_mask(mask):
                raise ValueError(
                    f"{name} is {mask}, expected {{max_width: …, stride: …}} with numbers above "
                    "0, or null"
                )
        feats_copies = {} if feats_copies is None else feats_copies
        if not isinstance(feats_copies, Mapping):
            raise ValueError(f"feats_copies is {feats_copies}, expected {{{_COPIES}}}")
        for modality, copies in feats_copies.items():
            if modality not in MODALITIES or not isinstance(copies, int) or copies < 1:
                raise ValueError(f"feats_copies is {dict(feats_copies)}, expected {{{_COPIES}}}")
        self.encode_text = encode_text
        self.flip_probability = flip_probability
        self.random_crop = random_crop
        self.video_mask = video_mask
        self.speech_mask = speech_mask
        self.feats_mask = feats_mask
        self.feats_copies = feats_copies
        self.speech_normalise = speech_normalise
        self.video_multiple = video_multiple
        self.noise = None
        if noise is not None and (train or noise_in_validation):
            self.noise = self.make_noise(noise)

    def make_noise(self, conf: dict[str, Any]) -> Callable[[str, np.ndarray], np.ndarray]:
        """Return a function from an utterance's id and waveform to the noisy waveform.

        Override it for another kind of noise. It is called only if noise is wanted.

        Args:
            conf: the option ``noise``.
        """
        return NoiseAdder(**{"deterministic": not self.train, **conf})

    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        """Turn ``speech`` ``(samples,)``, ``video`` uint8 ``(T, H, W)`` and ``text`` into arrays.

        Raises:
            ValueError: an utterance has no or non-finite samples, or too few or too small frames.
        """
        out = {}
        for name, value in data.items():
            if name == "speech":
                out[name] = self._speech(uid, value)
            elif name == "video":
                out[name] = self._video(uid, value)
            elif name == "text":
                out[name] = np.asarray(self.encode_text(value), dtype=np.int64)
            elif name in _BY_FEATS_NAME and self.train:
                out[name] = self._train_feats(_BY_FEATS_NAME[name], value)
            else:
                out[name] = value
        return out

    def count_text(self, texts: Sequence[str]) -> list[int]:
        """Return the number of token ids of each transcript."""
        return self.encode_text.count(texts)

    def _speech(self, uid: str, speech: np.ndarray) -> np.ndarray:
        if speech.ndim == 2:
            speech = speech.mean(axis=1)
        if len(speech) == 0:
            raise ValueError(f"utterance {uid} has no audio samples: drop it (stage 4)")
        if not np.isfinite(speech).all():
            raise ValueError(f"utterance {uid} has audio samples that are not finite")
        speech = speech.astype(np.float32)
        if self.noise is not None:
            speech = self.noise(uid, speech)
        if self.speech_normalise:
            speech = normalise_speech(speech)
        if self.train and self.speech_mask is not None:
            speech = adaptive_time_mask(speech, **_in_units(self.speech_mask, SAMPLE_RATE))
        return speech

    def _train_feats(self, modality: str, feats: np.ndarray) -> np.ndarray:
        """Take one of the copies ``(copies T, D)``, and mask it."""
        copies = self.feats_copies.get(modality, 1)
        if copies > 1:
            feats = np.split(feats, copies)[np.random.randint(copies)]
        if self.feats_mask is not None:
            feats = adaptive_time_mask(feats, **self.feats_mask)
        return feats

    def _video(self, uid: str, video: np.ndarray) -> np.ndarray:
        if len(video) == 0:
            raise ValueError(f"utterance {uid} has no video frames: drop it (stage 4)")
        video = crop(video, random=self.train and self.random_crop)
        if self.train:
            video = horizontal_flip(video, probability=self.flip_probability)
        video = normalise_video(video)
        if self.train and self.video_mask is not None:
            video = adaptive_time_mask(video, **_in_units(self.video_mask, FRAME_RATE))
        kept = len(video) - len(video) % self.video_multiple
        if not kept:
            raise ValueError(
                f"utterance {uid} has {len(video)} video frames, fewer than the model's "
                f"video_multiple of {self.video_multiple}: drop it (stage 4)"
            )
        return video[:kept]


def _is_mask(mask: Any) -> bool:
    return (
        isinstance(mask, Mapping)
        and set(mask) == {"max_width", "stride"}
        and all(isinstance(value, int | float) and value > 0 for value in mask.values())
    )


def _in_units(mask: dict[str, float], rate: int) -> dict[str, int]:
    return {name: round(seconds * rate) for name, seconds in mask.items()}
