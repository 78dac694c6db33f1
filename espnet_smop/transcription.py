"""From a media file to what is said in it, and when."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet_smop.corpus.clips import LANDMARK_SLACK
from espnet_smop.corpus.landmarks import (
    DlibLandmarks,
    LandmarkError,
    LandmarkProvider,
    find_beside,
    read_landmarks,
)
from espnet_smop.corpus.media import (
    SAMPLES_PER_FRAME,
    EmptyMediaError,
    NoAudioStreamError,
    NoVideoStreamError,
    duration,
    read_audio,
    read_pictures,
)
from espnet_smop.corpus.mouth import NoFaceError, crop, crop_transforms
from espnet_smop.corpus.pauses import cut_at_pauses
from espnet_smop.modality import FRAME_RATE, MODALITIES, SAMPLE_RATE

if TYPE_CHECKING:
    from espnet_smop.bin.avsr_inference import AVSRSpeech2Text


# Streams of a file end together but for what their codecs round.
_SLACK_FRAMES = FRAME_RATE // 2

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done."""


class TranscriptionError(RuntimeError):
    """A file has nothing that the model could recognise."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """What is said in a piece.

    Attributes:
        start: seconds from the beginning of the file.
        end: likewise.
        text: the words.
        score: the hypothesis' score.
        modalities: what they were recognised from.
    """

    start: float
    end: float
    text: str
    score: float
    modalities: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Face:
    """Where the mouth is.

    Attributes:
        transforms: ``(T, 2, 3)`` by source frame, see `crop_transforms`.
        seen: source frames in which a face was found.
    """

    transforms: np.ndarray
    seen: np.ndarray


class Transcriber:
    """Recognises media files with a trained model.

    Args:
        speech2text: the model.
        modalities: what to use of what the model takes; None is all of it.
        landmarks: how to find faces; None takes a landmark file beside the video, else dlib.
        max_seconds: longest piece to recognise at once.
        progress: told how far things are.
    """

    def __init__(
        self,
        speech2text: "AVSRSpeech2Text",
        *,
        modalities: tuple[str, ...] | None = None,
        landmarks: LandmarkProvider | None = None,
        max_seconds: float = 15.0,
        progress: Progress = lambda what, share: None,
    ):
        frontends = speech2text.model.frontends
        own = tuple(m for m in MODALITIES if m in frontends)
        unknown = [m for m in modalities or () if m not in own]
        if unknown:
            raise ValueError(f"the model takes {' and '.join(own)}, not {' and '.join(unknown)}")
        self.speech2text = speech2text
        self.modalities = modalities or own
        self.landmarks = landmarks
        self.progress = progress
        limits = [frontend.max_seconds for frontend in frontends.values()]
        self.max_seconds = min([max_seconds, *(limit for limit in limits if limit is not None)])
        preprocess = speech2text.preprocess
        self.min_frames = max(1, preprocess.video_multiple)

    def __call__(self, path: str | Path, warn: Callable[[str], None]) -> Iterator[Segment]:
        """Recognise a file, piece by piece.

        Args:
            path: video or audio file.
            warn: called with what could not be used, and why.

        Raises:
            TranscriptionError: there is nothing to recognise.
            MediaError: the file cannot be read.
        """
        path = Path(path)
        samples, audio_start = self._audio(path, warn)
        face = self._face(path, warn)
        if samples is None and face is None:
            raise TranscriptionError(
                f"{path}: nothing of {' and '.join(self.modalities)} is there to recognise"
            )
        crops, frames = iter(()), 0
        if face is not None:
            crops = _crops(path, face)
            video_start, frames = _extent(path)
            if samples is not None:
                samples = _shifted(samples, audio_start - video_start)
                if abs(len(samples) / SAMPLES_PER_FRAME - frames) < _SLACK_FRAMES:
                    # As in preparation, the pictures set the length.
                    length = frames * SAMPLES_PER_FRAME
                    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
        if samples is not None:
            # What lasts less than a frame at the end says nothing.
            frames = max(frames, len(samples) // SAMPLES_PER_FRAME, 1)
        pieces = cut_at_pauses(samples, frames, max_seconds=self.max_seconds)
        for start, end in pieces:
            video = self._video(crops, end - start)
            speech = self._speech(samples, start, end)
            if video is None and face is not None:
                times = f"{start / FRAME_RATE:.1f} to {end / FRAME_RATE:.1f} s"
                rest = "nothing" if speech is None else "the audio alone"
                warn(f"no face from {times}: recognising {rest} there")
            inputs = {"speech": speech, "video": video}
            used = tuple(
                m for m, x in zip(MODALITIES, inputs.values(), strict=True) if x is not None
            )
            if used:
                [(text, _, _, score), *_] = self.speech2text(**inputs, allow_missing=True)
                yield Segment(start / FRAME_RATE, end / FRAME_RATE, text, score, used)
            self.progress("recognising", end / frames)

    def _audio(self, path: Path, warn: Callable[[str], None]) -> tuple[np.ndarray | None, float]:
        if "audio" not in self.modalities:
            return None, 0.0
        try:
            return read_audio(path)
        except (NoAudioStreamError, EmptyMediaError) as e:
            if len(self.modalities) == 1:
                raise
            warn(f"{e.cause}: recognising the video alone")
            return None, 0.0

    def _face(self, path: Path, warn: Callable[[str], None]) -> _Face | None:
        if "video" not in self.modalities:
            return None
        try:
            landmarks, seen = self._find(path, warn)
            return _Face(crop_transforms(landmarks), seen)
        except (NoVideoStreamError, EmptyMediaError) as e:
            cause = e.cause
        except (NoFaceError, LandmarkError) as e:
            cause = str(e)
        if len(self.modalities) == 1:
            raise TranscriptionError(f"{path}: {cause}; the model recognises from video alone")
        warn(f"{cause}: recognising the audio alone")
        return None

    def _find(self, path: Path, warn: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray]:
        next(read_pictures(path))  # a file without pictures says so before faces are looked for
        beside = find_beside(path) if self.landmarks is None else None
        if beside is not None:
            landmarks = read_landmarks(beside)
            frames = 0
            for picture in read_pictures(path):
                frames = picture.index + 1
            if abs(frames - len(landmarks)) > LANDMARK_SLACK:
                raise LandmarkError(
                    f"{beside}: has landmarks of {len(landmarks)} frames, {path.name} has "
                    f"{frames}; give the right ones or remove them"
                )
        else:
            provider = self._dlib if self.landmarks is None else self.landmarks
            if hasattr(provider, "progress"):
                total = max(duration(path), 1e-3)
                provider.progress = lambda picture: self.progress(
                    "finding the face", min(picture.time / total, 1.0)
                )
            landmarks = provider(path.stem, str(path))
            faces = getattr(provider, "most_faces", 1)
            if faces > 1:
                warn(f"{faces} faces in a picture: taking the largest")
            if getattr(provider, "seen", None):
                return landmarks, np.asarray(provider.seen)
        return landmarks, np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))

    @functools.cached_property
    def _dlib(self) -> LandmarkProvider:
        return DlibLandmarks()

    def _video(self, crops: Iterator[tuple[np.ndarray, bool]], frames: int) -> np.ndarray | None:
        """Take a piece's pictures ``(frames, 96, 96)``; None if a face is in less than half."""
        given = list(itertools.islice(crops, frames))
        if 2 * sum(seen for _, seen in given) < frames:
            return None
        pictures = [picture for picture, _ in given]
        # Where the video ends before the sound, its last picture stays.
        pictures += [pictures[-1]] * (max(frames, self.min_frames) - len(pictures))
        return np.stack(pictures)

    def _speech(self, samples: np.ndarray | None, start: int, end: int) -> np.ndarray | None:
        """Take a piece's samples; None if the sound ended before it."""
        if samples is None:
            return None
        piece = samples[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        wanted = max(end - start, self.min_frames) * SAMPLES_PER_FRAME
        return np.pad(piece, (0, max(0, wanted - len(piece)))) if len(piece) else None


def _extent(path: Path) -> tuple[float, int]:
    """Return when a video begins, and how many pictures of 1/25 s it has."""
    start, count = 0.0, 0
    for picture in read_pictures(path):
        start = picture.time if count == 0 else start
        count += 1
    return start, count


def _crops(path: Path, face: _Face) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield each picture's mouth crop and whether a face was found at most half a second away."""
    gap = FRAME_RATE // 2
    for picture in read_pictures(path):
        index = min(picture.index, len(face.transforms) - 1)
        after = np.searchsorted(face.seen, picture.index)
        near = face.seen[max(after - 1, 0) : after + 1]
        seen = bool(len(near)) and int(np.abs(near - picture.index).min()) <= gap
        yield crop(picture.grey(), face.transforms[index]), seen


def _shifted(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Let sound that begins so much after the picture begin with it."""
    offset = round(seconds * SAMPLE_RATE)
    if offset > 0:
        return np.concatenate([np.zeros(offset, samples.dtype), samples])
    return samples[-offset:]
