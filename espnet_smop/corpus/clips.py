"""From one recording to its utterances' files: FLAC at 16 kHz and 96×96 mouth crops at 25 fps.

A recording may have one stream only. Where it has both, picture and sound start together on the
container's clock, and the pictures set the length: after cutting, an utterance of T frames has
exactly 640·T samples. Shorter sound is padded with zeros and longer sound is cut. Where the streams
differ by more than `MAX_GAP_SECONDS`, one of them is damaged: training refuses the clip, test sets
keep and note it.
"""

import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from espnet_smop.corpus.landmarks import LandmarkError, LandmarkProvider, find_landmarks
from espnet_smop.corpus.media import (
    FRAME_RATE,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Picture,
    Video,
    read_audio,
)
from espnet_smop.corpus.mouth import CROP_SIZE, NoFaceError, centre_transform, crop, crop_transforms
from espnet_smop.corpus.utterance import VideoKind
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.video import write_video

MAX_GAP_SECONDS = 1.0
# Landmark files of public preparations may have a frame or two more or less than the clip.
LANDMARK_SLACK = 2


class ClipError(RuntimeError):
    """A clip cannot be used; the message is one line with file, cause and remedy."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording and the segments to cut out of it.

    ``audio`` and ``video`` are files, which may be the same; one may be None. ``segments`` are
    (utterance, first frame, end frame or None).
    """

    id: str
    audio: str | None
    video: str | None
    kind: VideoKind
    segments: tuple[tuple[str, int, int | None], ...]


@dataclasses.dataclass(frozen=True)
class Clip:
    """One utterance's content: float32 ``(640·T,)`` and uint8 ``(T, 96, 96)``, or one of them."""

    utterance: str
    samples: np.ndarray | None
    frames: np.ndarray | None


def cut_clips(
    recording: Recording, landmarks: LandmarkProvider, *, keep_all: bool
) -> tuple[list[Clip], list[str]]:
    """Decode a recording, each stream once, and cut its utterances.

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
    notes: list[str] = []
    samples = frames = None
    if recording.audio is not None:
        samples, audio_start = read_audio(recording.audio)
    if recording.video is not None:
        video = Video(recording.video)
        if recording.kind == "mouth":
            frames, video_start = _mouths(video)
        else:
            transforms = _transforms(recording, video, landmarks, keep_all, notes)
            frames, video_start = _crops(video, transforms)
    if samples is not None and frames is not None:
        # Two files have no common clock: both begin at their first frame.
        if recording.audio == recording.video:
            samples = shift(samples, round((audio_start - video_start) * SAMPLE_RATE))
        gap = len(samples) / SAMPLE_RATE - len(frames) / FRAME_RATE
        if abs(gap) > MAX_GAP_SECONDS:
            cause = f"audio is {abs(gap):.2f} s {'longer' if gap > 0 else 'shorter'} than video"
            if not keep_all:
                raise ClipError(f"{recording.audio}: {cause}; copy it again or leave it out")
            notes.append(f"{cause}: {'cut' if gap > 0 else 'padded'} to the video's length")
        samples = fit(samples, len(frames) * SAMPLES_PER_FRAME)
    return [_cut(recording, segment, samples, frames) for segment in recording.segments], notes


def _cut(
    recording: Recording,
    segment: tuple[str, int, int | None],
    samples: np.ndarray | None,
    frames: np.ndarray | None,
) -> Clip:
    utterance, start, end = segment
    length = -(-len(samples) // SAMPLES_PER_FRAME) if frames is None else len(frames)
    end = length if end is None else min(end, length)
    if start >= end:
        raise ClipError(
            f"{recording.video or recording.audio}: utterance {utterance} begins at "
            f"{start / FRAME_RATE:.2f} s, the clip ends at {length / FRAME_RATE:.2f} s; check its "
            "text file"
        )
    return Clip(
        utterance,
        None if samples is None else samples[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME],
        None if frames is None else frames[start:end],
    )


def _transforms(
    recording: Recording,
    video: Video,
    landmarks: LandmarkProvider,
    keep_all: bool,
    notes: list[str],
) -> np.ndarray | None:
    """Return the transforms from picture to crop; None, with a note, for centre crops."""
    try:
        return crop_transforms(find_landmarks(landmarks, recording.id, video))
    except LandmarkError:
        next(iter(video))  # a video without pictures raises its own error
        raise
    except NoFaceError as e:
        if not keep_all:
            raise ClipError(f"{video.path}: {e}; give its landmarks or leave it out") from None
        notes.append("no face found: the crop is the picture's centre")
        return None


def _crops(video: Video, transforms: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Return the mouth crops (centre crops if transforms are None) and the first picture's time."""
    start, crops, picture = None, [], None
    for picture in video:
        start = picture.time if start is None else start
        grey = picture.grey()
        if transforms is None:
            transform = centre_transform(*grey.shape)
        else:
            transform = transforms[min(picture.index, len(transforms) - 1)]
        crops.append(crop(grey, transform))
    _check_landmark_count(video, picture, transforms)
    return np.stack(crops), start


def _check_landmark_count(video: Video, last: Picture, transforms: np.ndarray | None) -> None:
    if transforms is not None and abs(last.index + 1 - len(transforms)) > LANDMARK_SLACK:
        raise ClipError(
            f"{video.path}: has {last.index + 1} frames but landmarks for {len(transforms)}; "
            "they belong to another clip, give the right ones or use --landmarks dlib"
        )


def _mouths(video: Video) -> tuple[np.ndarray, float]:
    pictures = [(p.grey(), p.time) for p in video]
    wrong = (grey.shape for grey, _ in pictures if grey.shape != (CROP_SIZE, CROP_SIZE))
    shape = next(wrong, None)
    if shape is not None:
        raise ClipError(
            f"{video.path}: pictures of {shape[1]}×{shape[0]} instead of {CROP_SIZE}×"
            f"{CROP_SIZE} mouth crops; prepare from the raw corpus"
        )
    return np.stack([grey for grey, _ in pictures]), pictures[0][1]


def shift(samples: np.ndarray, offset: int) -> np.ndarray:
    """Align sound that begins ``offset`` samples after the picture."""
    if offset > 0:
        return np.concatenate([np.zeros(offset, samples.dtype), samples])
    return samples[-offset:]


def fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Cut sound to ``length`` samples, or pad it with zeros."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def write_clip(clip: Clip, *, audio: Path | None = None, video: Path | None = None) -> None:
    """Write the files of an utterance's modalities, each atomically, video last."""
    if clip.samples is not None:
        with atomic_write(audio, "wb") as file:
            soundfile.write(file, clip.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    if clip.frames is not None:
        write_video(video, clip.frames)
