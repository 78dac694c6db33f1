"""From one recording to its utterances' files: FLAC at 16 kHz and 96×96 mouth crops at 25 fps.

Picture and sound start together on the container's clock, and the pictures set the length: after
cutting, an utterance of T frames has exactly 640·T samples. Sound that is shorter is padded with
zeros and longer sound is cut; where the two streams of a clip differ by more than
`MAX_GAP_SECONDS` one of them is damaged, so that the clip is refused for training, and for test
sets kept and noted.
"""

import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from espnet_smop.corpus.landmarks import LandmarkError, LandmarkProvider
from espnet_smop.corpus.media import (
    FRAME_RATE,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Picture,
    read_audio,
    read_pictures,
)
from espnet_smop.corpus.mouth import CROP_SIZE, NoFaceError, centre_transform, crop, crop_transforms
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.video import write_video

MAX_GAP_SECONDS = 1.0
# Landmark files of public preparations may have a frame or two more or less than the clip.
LANDMARK_SLACK = 2


class ClipError(RuntimeError):
    """A clip cannot be used; the message is one line with file, cause and remedy."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording and what is cut out of it.

    ``segments`` are (utterance, first frame, end frame or None); ``kind`` is ``face`` or, where
    the video is the mouth crop already, ``mouth``.
    """

    id: str
    audio: str
    video: str
    kind: str
    segments: tuple[tuple[str, int, int | None], ...]


@dataclasses.dataclass(frozen=True)
class Clip:
    """One utterance's content: float32 ``(640·T,)`` and uint8 ``(T, 96, 96)``."""

    utterance: str
    samples: np.ndarray
    frames: np.ndarray


def cut_clips(
    recording: Recording, landmarks: LandmarkProvider, *, keep_all: bool
) -> tuple[list[Clip], list[str]]:
    """Decode a recording and cut its utterances.

    Args:
        recording: what to cut.
        landmarks: where the faces' landmarks come from.
        keep_all: for test sets: a clip without a face gets the crop of the picture's centre, and
            one whose streams differ in length is kept.

    Returns:
        The utterances, and notes on what had to be done to keep them.

    Raises:
        MediaError, LandmarkError, ClipError: it cannot be used.
    """
    samples, audio_start = read_audio(recording.audio)
    notes = []
    if recording.kind == "mouth":
        frames, video_start = _mouths(recording)
    else:
        try:
            transforms = crop_transforms(landmarks(recording.id, recording.video))
        except LandmarkError:
            next(read_pictures(recording.video))  # what has no pictures says so instead
            raise
        except NoFaceError as e:
            if not keep_all:
                raise ClipError(
                    f"{recording.video}: {e}; give its landmarks or leave it out"
                ) from None
            transforms = None
            notes.append("no face found: the crop is the picture's centre")
        frames, video_start = _crops(recording.video, transforms)
    # Two files have no common clock: both begin at their first frame.
    if recording.audio == recording.video:
        samples = _shift(samples, round((audio_start - video_start) * SAMPLE_RATE))
    gap = len(samples) / SAMPLE_RATE - len(frames) / FRAME_RATE
    if abs(gap) > MAX_GAP_SECONDS:
        cause = f"audio is {abs(gap):.2f} s {'longer' if gap > 0 else 'shorter'} than video"
        if not keep_all:
            raise ClipError(f"{recording.audio}: {cause}; copy it again or leave it out")
        notes.append(f"{cause}: {'cut' if gap > 0 else 'padded'} to the video's length")
    samples = _fit(samples, len(frames) * SAMPLES_PER_FRAME)
    clips = []
    for utterance, start, end in recording.segments:
        end = min(len(frames) if end is None else end, len(frames))
        if start >= end:
            raise ClipError(
                f"{recording.video}: utterance {utterance} begins at {start / FRAME_RATE:.2f} s, "
                f"the clip ends at {len(frames) / FRAME_RATE:.2f} s; check its text file"
            )
        part = samples[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        clips.append(Clip(utterance, part, frames[start:end]))
    return clips, notes


def _crops(video: str, transforms: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Return the mouth crops and the first picture's time; no transforms: centre crops."""
    start, crops, picture = None, [], None
    for picture in read_pictures(video):
        start = picture.time if start is None else start
        grey = picture.grey()
        if transforms is None:
            transform = centre_transform(*grey.shape)
        else:
            transform = transforms[min(picture.index, len(transforms) - 1)]
        crops.append(crop(grey, transform))
    _check_landmark_count(video, picture, transforms)
    return np.stack(crops), start


def _check_landmark_count(video: str, last: Picture, transforms: np.ndarray | None) -> None:
    if transforms is not None and abs(last.index + 1 - len(transforms)) > LANDMARK_SLACK:
        raise ClipError(
            f"{video}: has {last.index + 1} frames but landmarks for {len(transforms)}; "
            "they belong to another clip, give the right ones or use --landmarks dlib"
        )


def _mouths(recording: Recording) -> tuple[np.ndarray, float]:
    pictures = [(p.grey(), p.time) for p in read_pictures(recording.video)]
    wrong = (grey.shape for grey, _ in pictures if grey.shape != (CROP_SIZE, CROP_SIZE))
    shape = next(wrong, None)
    if shape is not None:
        raise ClipError(
            f"{recording.video}: pictures of {shape[1]}×{shape[0]} instead of {CROP_SIZE}×"
            f"{CROP_SIZE} mouth crops; prepare from the raw corpus"
        )
    return np.stack([grey for grey, _ in pictures]), pictures[0][1]


def _shift(samples: np.ndarray, offset: int) -> np.ndarray:
    """Let sound that begins ``offset`` samples after the picture begin with it."""
    if offset > 0:
        return np.concatenate([np.zeros(offset, samples.dtype), samples])
    return samples[-offset:]


def _fit(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def write_clip(clip: Clip, audio: Path, video: Path) -> None:
    """Write an utterance's two files, each atomically, the video last."""
    with atomic_write(audio, "wb") as file:
        soundfile.write(file, clip.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    write_video(video, clip.frames)
