"""Clips of a visitor, and the page's recogniser with a tiny model."""

import numpy as np
import pytest
import soundfile

from espnet_smop.demo.examples import landmarks_by_content
from espnet_smop.demo.playback import webm
from espnet_smop.demo.recognition import ClipRecogniser
from espnet_smop.inference import AVSRSpeech2Text, Transcriber


def _content(seconds):
    """Return sound ``(samples,)`` and pictures ``(T, 96, 96)`` that move."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(40, 216, (12, 12)), np.ones((8, 8))).astype(np.uint8)
    video = np.stack([np.roll(picture, 4 * t, axis=1) for t in range(round(25 * seconds))])
    time = np.arange(round(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * 300 * time)).astype(np.float32), video


@pytest.fixture(scope="session")
def content():
    """Return a function from seconds to the sound and pictures of a clip."""
    return _content


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Return a folder of clips with sound and a face, and the landmark files of two of them."""
    folder = tmp_path_factory.mktemp("clips")
    points = np.random.default_rng(1).uniform(30, 66, (68, 2))
    for name, seconds in (("a", 1.0), ("b", 1.4)):
        speech, video = _content(seconds)
        (folder / f"{name}.webm").write_bytes(webm(speech, video))
        np.save(folder / f"{name}.npy", np.tile(points, (len(video), 1, 1)).astype(np.float32))
    soundfile.write(folder / "long.wav", np.zeros(16000 * 40, np.float32), 16000)
    noise = np.random.default_rng(2).normal(size=16000 * 3).astype(np.float32)
    soundfile.write(folder / "babble.wav", 0.1 * noise, 16000)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="session")
def make_recogniser(experiment, clips):
    """Return a function that makes a recogniser; keywords are options of the model's loading."""

    def make(model=experiment, **options):
        speech2text = AVSRSpeech2Text.from_pretrained(model, beam_size=1, **options)
        return ClipRecogniser(
            Transcriber(speech2text),
            babble=clips / "babble.wav",
            landmarks=landmarks_by_content(sorted(clips.glob("*.webm"))),
        )

    return make


@pytest.fixture(scope="session")
def recogniser(make_recogniser):
    """Return one for sound and lips."""
    return make_recogniser()
