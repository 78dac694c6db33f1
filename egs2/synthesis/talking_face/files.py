"""Files written completely or not at all."""

import os
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from talking_face.lips import FRAME_RATE
from talking_face.speech import SAMPLE_RATE


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path, in an existing directory, that becomes ``path`` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    yield temporary
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write samples (±1) at 16 kHz as 16-bit WAV."""
    with atomic(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def write_mp4(path: Path, video: np.ndarray, samples: np.ndarray | None, crf: int) -> None:
    """Write H.264 at 25 fps, and samples at 16 kHz as AAC.

    Args:
        path: The file.
        video: Planar YUV 4:2:0, uint8 ``(T, 3/2 · height, width)``.
        samples: float32 ``(samples,)``; None writes no sound.
        crf: The encoder's constant rate factor; smaller is better.
    """
    with atomic(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        pictures = container.add_stream("libx264", rate=FRAME_RATE)
        pictures.height, pictures.width = video.shape[1] * 2 // 3, video.shape[2]
        pictures.pix_fmt = "yuv420p"
        pictures.options = {"preset": "ultrafast", "crf": str(crf)}
        pictures.codec_context.thread_count = 1
        if samples is not None:
            sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            sound.bit_rate = 96_000
            sound.options = {"aac_coder": "fast"}
        for picture in video:
            frame = av.VideoFrame.from_numpy_buffer(picture, format="yuv420p")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        if samples is not None:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            # With a time, the encoder's delay is recorded in the file, and readers cut it off.
            frame.pts, frame.time_base = 0, Fraction(1, SAMPLE_RATE)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
