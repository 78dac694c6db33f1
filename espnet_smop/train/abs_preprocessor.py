"""The interface of preprocessors."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from espnet2.train.preprocessor import AbsPreprocessor


class AbsAVPreprocessor(AbsPreprocessor):
    """ESPnet's preprocessor.

    The task calls a subclass with ``train`` and ``encode_text`` (sentence → token ids, without BOS
    and EOS), then with ``preprocessor_conf`` as keywords. Decoding under noise needs the options
    ``noise`` and ``noise_in_validation`` of `AVSRPreprocessor`.
    """

    video_multiple: int = 1
    """Video frames of an utterance are cut to a multiple of this."""

    @abstractmethod
    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        """Turn ``speech`` ``(samples,)``, ``video`` uint8 ``(T, H, W)`` and ``text`` into arrays.

        Returns:
            The same names: a waveform, what the video frontend takes, and token ids.
        """

    def count_text(self, texts: Sequence[str]) -> list[int]:
        """Return the number of token ids of each transcript; override it if this is slow."""
        return [len(self("", {"text": text})["text"]) for text in texts]
