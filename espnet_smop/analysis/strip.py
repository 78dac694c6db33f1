"""One utterance and where its tokens went."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Route:
    """What a router decided on the tokens of one utterance and modality.

    Attributes:
        router: its name.
        modality: where the tokens came from.
        probs: ``(T, N)`` its softmax.
        choices: ``(T, K)`` experts by falling probability.
        token_seconds: how much speech a token stands for.
    """

    router: str
    modality: str
    probs: np.ndarray
    choices: np.ndarray
    token_seconds: float


@dataclass
class Strip:
    """One utterance, from its signals to its routes.

    Attributes:
        uid: its id.
        text: what is said.
        speech: waveform ``(samples,)``; None for a model that does not hear.
        video: grey uint8 ``(T, H, W)``; None for a model that does not see.
        routes: one for each router and modality.
        sample_rate: of the waveform, in Hz.
        video_rate: of the video, in pictures per second.
    """

    uid: str
    text: str
    speech: np.ndarray | None
    video: np.ndarray | None
    routes: list[Route]
    sample_rate: int
    video_rate: float
