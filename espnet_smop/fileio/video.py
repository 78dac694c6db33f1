"""The data type ``video``: grey uint8 ``(T, H, W)`` in a container file, listed in an scp.

Clips are stored one file each, so access is random and a broken file costs one clip. ``register``
makes ESPnet's map-style and iterable datasets read ``video.scp,video,video``; call it before a
dataset is built (``AVSRTask`` does).

Storage is grey H.264 at constant quality (crf 17): a third of lossless FFV1's size or less, faster
to decode, at 47 dB PSNR; the published preparations used crf 20 and colour. x264's superfast
encodes in half of veryfast's time, which was half of a whole clip's, and takes a tenth more space
at the same PSNR. `benchmarks/video_storage.py` measures the candidates.
"""

import collections.abc
from pathlib import Path

import av
import numpy as np

from espnet_smop.fileio.atomic import atomic_path
from espnet_smop.fileio.frame import FrameConverter
from espnet_smop.fileio.table import read_table
from espnet_smop.modality import FRAME_RATE

SUFFIX = ".mkv"
"""Suffix of `write_video`'s files."""
CODEC = "libx264"
# Without mbtree: on grey pictures, its output varies from call to call.
OPTIONS = {
    "crf": "17",
    "preset": "superfast",
    "tune": "fastdecode",
    "x264-params": "mbtree=0:bframes=0",
}


class VideoFileError(RuntimeError):
    """A video file cannot be read; the message is one line with file, cause and remedy."""


def open_file(path: str | Path) -> av.container.InputContainer:
    """Open a local media file with PyAV, even if its name looks like a URL.

    Raises:
        av.FFmpegError: it is not one.
    """
    # Without the prefix, `http:a.mp4` is a URL; the option restricts what a playlist may name.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"})


def write_video(
    path: str | Path,
    frames: np.ndarray,
    *,
    rate: int = 25,
    codec: str = CODEC,
    options: dict[str, str] = OPTIONS,
) -> None:
    """Write grey pictures into a container file, atomically.

    Args:
        path: the file; its suffix chooses the container.
        frames: uint8 ``(T, H, W)`` with T ≥ 1 and even H and W.
        rate: frames per second.
        codec: FFmpeg's name of an encoder that takes grey pictures.
        options: the encoder's options.
    """
    if frames.dtype != np.uint8 or frames.ndim != 3 or not len(frames):
        raise ValueError(
            f"expected uint8 frames (T, H, W) with T ≥ 1, got {frames.dtype} {frames.shape}"
        )
    with (
        atomic_path(path) as temporary,
        # The same pictures make the same bytes: no random numbers or versions in the header.
        av.open(f"file:{temporary}", "w", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "gray"
        stream.codec_context.color_range = av.video.reformatter.ColorRange.JPEG  # 0 to 255
        stream.codec_context.thread_count = 1
        for picture in np.ascontiguousarray(frames):
            container.mux(stream.encode(av.VideoFrame.from_numpy_buffer(picture, format="gray")))
        container.mux(stream.encode())


def _frame_rate(stream: av.VideoStream) -> float | None:
    """Return frames per second; None if the header lacks it or is damaged."""
    rate = stream.average_rate
    return rate.numerator / rate.denominator if rate is not None and rate.denominator else None


def read_video(path: str | Path) -> np.ndarray:
    """Read a video file as grey pictures, uint8 ``(T, H, W)``.

    Accepts any container and pixel format of FFmpeg; colour is dropped.

    Raises:
        VideoFileError: missing, unreadable, without video, truncated, or not at 25 frames a second.
    """
    remedy = "make it again; in a recipe, stage 3 does"
    if not Path(path).is_file():
        raise VideoFileError(f"{path}: no such video file; in a recipe, stage 3 makes it")
    try:
        with open_file(path) as container:
            if not container.streams.video:
                raise VideoFileError(f"{path}: has no video stream; {remedy}")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoFileError(f"{path}: unknown video codec; {remedy}")
            rate = _frame_rate(stream)
            if rate is not None and abs(rate - FRAME_RATE) > 0.5:
                raise VideoFileError(
                    f"{path}: has {rate:g} frames a second, expected {FRAME_RATE}; {remedy}"
                )
            # Data loader workers are the parallelism; threads within one clip would only compete.
            stream.codec_context.thread_count = 1
            converter = FrameConverter()
            frames = [converter.grey(frame) for frame in container.decode(stream)]
    except (av.FFmpegError, OSError) as e:
        raise VideoFileError(f"{path}: cannot be decoded ({e.strerror}); {remedy}") from None
    if not frames:
        raise VideoFileError(f"{path}: holds no frames; {remedy}")
    if len({frame.shape for frame in frames}) > 1:
        raise VideoFileError(f"{path}: its pictures differ in size; {remedy}")
    return np.stack(frames)


class VideoScpReader(collections.abc.Mapping):
    """A ``video.scp`` as a mapping from id to frames, read on access.

    Example::

        reader = VideoScpReader("dump/raw/test/video.scp")
        frames = reader["speaker_00001"]  # uint8 (T, 96, 96)
    """

    def __init__(self, scp: str | Path):
        self.scp = str(scp)
        self.paths = read_table(scp, VideoFileError)
        for key, path in self.paths.items():
            if not path:
                raise VideoFileError(f"{scp}: id {key} has no path, expected `ID PATH`; add it")

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self.paths:
            raise KeyError(f"{self.scp} has no id {key}; run `data_dir fix` on its directory")
        return read_video(self.paths[key])

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self):
        return iter(self.paths)

    def keys(self):  # noqa: D102 (ESPnet's datasets ask for keys)
        return self.paths.keys()


def register() -> None:
    """Register the type ``video`` with ESPnet's datasets; repeated calls have no effect."""
    from espnet2.train import dataset, iterable_dataset

    dataset.DATA_TYPES["video"] = {
        "func": VideoScpReader,
        "kwargs": [],
        "help": "Video files read as grey uint8 pictures (T, H, W)."
        "\n\n"
        "   utterance_id_a a.mkv\n"
        "   utterance_id_b b.mkv\n"
        "   ...",
    }
    iterable_dataset.DATA_TYPES["video"] = read_video
