"""Read clips: audio as 16 kHz mono, video as 25 fps pictures, and errors for broken files.

Everything is decoded by PyAV in one pass and one thread (jobs run beside each other, so threads
within a clip would only compete). Failures are `MediaError`s of one line: file, cause, remedy.
"""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from espnet_smop.fileio.frame import FrameConverter
from espnet_smop.fileio.video import open_file
from espnet_smop.modality import FRAME_RATE, SAMPLE_RATE

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

# Durations are rounded: a stream counts as truncated when more than this is missing at its end.
_MISSING_FRAMES = 2
_MISSING_SECONDS = 0.2
# A picture is repeated or dropped when pictures are more than this many frames off their times.
_DRIFT_FRAMES = 2
# A longer gap is a reset of the clock, as where recordings were joined.
_LONGEST_GAP_SECONDS = 10.0
# In a WAV header, from here on sizes are those of programs that write into a pipe.
_UNKNOWN_SIZE = 0x7FFF0000
# Formats that name other files or URLs, which would be read instead.
_PLAYLISTS = frozenset({"concat", "dash", "hls", "imf", "rtsp", "sdp"})


class MediaError(RuntimeError):
    """A clip cannot be used; the message is one line with file, cause and remedy."""

    def __init__(self, path: str | Path, cause: str, remedy: str):
        super().__init__(f"{path}: {cause}; {remedy}")
        self.path = str(path)
        self.cause = cause


class UnreadableMediaError(MediaError):
    """The file is missing, or not in a container format that FFmpeg knows."""


class NoAudioStreamError(MediaError):
    """The file has no audio stream."""


class NoVideoStreamError(MediaError):
    """The file has no video stream."""


class TruncatedMediaError(MediaError):
    """The file ends, or cannot be decoded, before the end that its header announces."""


class EmptyMediaError(MediaError):
    """The stream is empty."""


class BadSamplesError(MediaError):
    """The sound has NaN or infinite samples."""


_COPY_AGAIN = "copy it again from its source"


@contextlib.contextmanager
def open_media(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Open a media file for reading.

    Raises:
        UnreadableMediaError: missing, not a media file, or a playlist.
        EmptyMediaError: it has no bytes.
    """
    if not Path(path).is_file():
        raise UnreadableMediaError(path, "no such file", "check the path or prepare the data again")
    if Path(path).stat().st_size == 0:
        raise EmptyMediaError(path, "file of 0 bytes", _COPY_AGAIN)
    try:
        container = open_file(path)
    except (av.FFmpegError, OSError, UnicodeDecodeError) as e:
        # An mp4 truncated before its index fails here too.
        cause = f"damaged, or not a media file ({getattr(e, 'strerror', e)})"
        if Path(path).suffix.lower() in (".txt", ".json", ".csv", ".yaml", ".scp"):
            raise UnreadableMediaError(path, cause, "give a video or audio file") from None
        raise UnreadableMediaError(path, cause, _COPY_AGAIN) from None
    with container:
        if not _PLAYLISTS.isdisjoint(container.format.name.split(",")):
            raise UnreadableMediaError(
                path, "is a playlist, not a media file", "give the file that it names"
            )
        yield container


def _decode(path: str | Path, container, stream) -> Iterator:
    if stream.codec_context is None:
        raise UnreadableMediaError(path, f"unknown {stream.type} codec", _COPY_AGAIN)
    stream.codec_context.thread_count = 1
    try:
        yield from container.decode(stream)
    except (av.FFmpegError, EOFError) as e:
        cause = f"{stream.type} cannot be decoded to its end ({e.strerror})"
        raise TruncatedMediaError(path, cause, _COPY_AGAIN) from None


def read_audio(path: str | Path) -> tuple[np.ndarray, float]:
    """Read the first audio stream.

    Returns:
        float32 ``(samples,)`` at 16 kHz, channels averaged, full scale is 1; and the time of the
        first sample on the container's clock in seconds.

    Raises:
        MediaError: one of its subclasses.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            raise NoAudioStreamError(
                path, "has no audio stream", "give a clip with sound or leave it out"
            )
        stream = container.streams.audio[0]
        chunks, start, kind, resampler = [], None, None, None
        for frame in _decode(path, container, stream):
            if start is None:
                start = frame.time or 0.0
            # Joined recordings may change their audio format midway.
            if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                chunks += _rest(resampler)
                # AAC's own sample format: mono at this rate passes unchanged.
                resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
            try:
                chunks += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            except av.FFmpegError as e:
                cause = f"{frame.layout.nb_channels} channels of sound at {frame.sample_rate} Hz "
                cause += f"cannot be mixed into one at {SAMPLE_RATE} Hz ({e.strerror})"
                raise UnreadableMediaError(path, cause, "convert it to mono") from None
        chunks += _rest(resampler)
        samples = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
        if not len(samples):
            raise EmptyMediaError(path, "audio stream holds no samples", _COPY_AGAIN)
        if not np.isfinite(samples).all():
            raise BadSamplesError(
                path, "has audio samples that are not finite (NaN)", "convert or record it again"
            )
        announced = float((stream.duration or 0) * (stream.time_base or 0))
        announced += _missing_from_wav(path, stream.codec_context.bit_rate)
        _check_complete(path, "audio", len(samples) / SAMPLE_RATE, announced, _MISSING_SECONDS)
    return samples, start


def _missing_from_wav(path: str | Path, bit_rate: int | None) -> float:
    """Return the seconds of sound that a WAV header announces but the file does not have.

    FFmpeg takes the duration from the file's size instead.
    """
    with open(path, "rb") as file:
        form, size, kind = struct.unpack("<4sI4s", file.read(12).ljust(12))
    missing = size + 8 - Path(path).stat().st_size
    if form != b"RIFF" or kind != b"WAVE" or size >= _UNKNOWN_SIZE or not bit_rate:
        return 0.0
    return max(missing, 0) * 8 / bit_rate


def _rest(resampler: av.AudioResampler | None) -> list[np.ndarray]:
    """Return the samples left in a resampler."""
    return [out.to_ndarray()[0] for out in resampler.resample(None)] if resampler else []


def _check_complete(path, kind: str, found: float, announced: float, tolerance: float) -> None:
    if found < announced - tolerance:
        unit = "frames" if kind == "video" else "s"
        cause = f"truncated: {kind} ends after {found:g} of {announced:g} {unit}"
        raise TruncatedMediaError(path, cause, _COPY_AGAIN)


def duration(path: str | Path) -> float:
    """Return a file's duration in seconds according to its header; 0 if unknown."""
    with open_media(path) as container:
        return (container.duration or 0) / av.time_base


def stream_types(path: str | Path) -> set[str]:
    """Return which of ``audio`` and ``video`` a file has.

    Raises:
        MediaError: missing or not a media file.
    """
    with open_media(path) as container:
        found = {"audio"} if container.streams.audio else set()
        return found | ({"video"} if _video_streams(container) else set())


class Picture:
    """One decoded frame, converted on request, and rotated as its file specifies.

    Attributes:
        index: its number among the frames of the source, which may have another rate than 25.
        time: seconds on the container's clock.
    """

    def __init__(self, index: int, time: float, frame, converter: FrameConverter):
        self.index = index
        self.time = time
        self._frame = frame
        self._converter = converter

    def grey(self) -> np.ndarray:
        """Return it as uint8 ``(H, W)``."""
        return self._upright(self._converter.grey(self._frame))

    def rgb(self) -> np.ndarray:
        """Return it as uint8 ``(H, W, 3)``."""
        return self._upright(self._converter.convert(self._frame, "rgb24"))

    @property
    def num_bytes(self) -> int:
        """Memory that the decoded frame takes."""
        return sum(plane.buffer_size for plane in self._frame.planes)

    def _upright(self, picture: np.ndarray) -> np.ndarray:
        turns = round(self._frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


class Video:
    """A video file whose pictures are decoded once, however often they are iterated over.

    The decoded pictures are kept in memory. A video that needs more than ``max_bytes`` is decoded
    again on each pass instead: at 224×224 pixels that is more than five minutes.
    """

    def __init__(self, path: str | Path, *, max_bytes: int = 2**29):
        self.path = str(path)
        self.max_bytes = max_bytes
        self._pictures: list[Picture] | None = None

    def __iter__(self) -> Iterator[Picture]:
        """Iterate over the pictures as `read_pictures` does."""
        if self._pictures is not None:
            yield from self._pictures
            return
        kept: list[Picture] = []
        room = self.max_bytes
        for picture in read_pictures(self.path):
            room -= picture.num_bytes
            if room >= 0:
                kept.append(picture)
            else:
                kept.clear()
            yield picture
        if room >= 0:
            self._pictures = kept


def read_pictures(path: str | Path) -> Iterator[Picture]:
    """Yield the first video stream's pictures at 25 per second.

    Other rates are converted to 25 by taking, for each tick, the picture nearest in time: pictures
    are repeated or dropped, never blended. A stream of 25 per second passes unchanged, but
    where pictures are more than two frames off their times, some are repeated or dropped. Where the
    clock jumps back, or ahead by more than ten seconds, the pictures continue without a gap. Cover
    art of sound files is ignored.

    Raises:
        MediaError: one of its subclasses, before the first picture or, for a truncated file, after
            the last one.
    """
    with open_media(path) as container:
        streams = _video_streams(container)
        if not streams:
            raise NoVideoStreamError(
                path, "has no video stream", "give a clip with a face or leave it out"
            )
        stream = streams[0]
        rate = float(stream.average_rate or stream.guessed_rate or FRAME_RATE)
        converter = FrameConverter()
        count = 0

        def pictures() -> Iterator[Picture]:
            nonlocal count
            for frame in _decode(path, container, stream):
                time = frame.time if frame.time is not None else count / rate
                yield Picture(count, time, frame, converter)
                count += 1

        # Damaged headers may announce a picture a day.
        step = min(1 / rate, _LONGEST_GAP_SECONDS)
        continuous = _continuous(pictures(), step)
        is_ours = abs(rate - FRAME_RATE) < 0.05
        yield from _steady(continuous) if is_ours else _nearest(continuous, step)
        if count == 0:
            raise EmptyMediaError(path, "video stream holds no frames", _COPY_AGAIN)
        if stream.frames:
            _check_complete(path, "video", count, stream.frames, _MISSING_FRAMES)


def _video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _continuous(pictures: Iterator[Picture], step: float) -> Iterator[Picture]:
    """Make timestamps continuous where the clock was reset."""
    last, shift = None, 0.0
    for picture in pictures:
        if last is not None and not 0 <= picture.time - last <= _LONGEST_GAP_SECONDS:
            shift += last + step - picture.time
        last = picture.time
        picture.time += shift
        yield picture


def _steady(pictures: Iterator[Picture]) -> Iterator[Picture]:
    """Yield 25 pictures per second, repeating or dropping pictures by their times."""
    ticks = 0
    previous = None
    start = 0.0
    for picture in pictures:
        if previous is None:
            start = picture.time
        late = (picture.time - start) * FRAME_RATE - ticks
        if late < -_DRIFT_FRAMES:
            continue
        if late > _DRIFT_FRAMES:
            for _ in range(round(late)):
                yield previous
                ticks += 1
        yield picture
        previous = picture
        ticks += 1


def _nearest(pictures: Iterator[Picture], step: float) -> Iterator[Picture]:
    """Yield, for every tick of 1/25 s, the picture nearest in time."""
    ticks = 0
    previous = None
    start = 0.0
    for picture in pictures:
        if previous is None:
            start = picture.time
        else:
            while ticks / FRAME_RATE < (previous.time + picture.time) / 2 - start:
                yield previous
                ticks += 1
        previous = picture
    while previous is not None and ticks / FRAME_RATE < previous.time + step / 2 - start:
        yield previous
        ticks += 1
