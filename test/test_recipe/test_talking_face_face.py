import dataclasses

import cv2
import numpy as np
import pytest

from talking_face.difficulty import Difficulty
from talking_face.face import FRAME_SIZE, Face
from talking_face.lips import OPENING, ROUNDING, WIDTH
from talking_face.prepared import crop_mouths
from talking_face.speakers import FIRST_PRETRAINER, PRETRAINING_VOICES, speaker

STILL = Difficulty(noise=(0, 0), blur=(0.3, 0.3), translation=0, rotation=0, zoom=0, brightness=0)
MOVING = Difficulty()


def film(index: int, path: np.ndarray, difficulty: Difficulty = STILL):
    face = Face(speaker(index, 0, difficulty).look)
    video, landmarks = face.film(path, difficulty, np.random.default_rng(0))
    return video[:, :FRAME_SIZE].astype(float), landmarks


def lips(**values: float) -> np.ndarray:
    """Two frames: at rest, and with some parameters set."""
    path = np.zeros((2, 7))
    for name, value in values.items():
        path[1, {"opening": OPENING, "rounding": ROUNDING, "width": WIDTH}[name]] = value
    return path


def fit(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the similarity (2, 3) by OpenCV's own estimator."""
    return cv2.estimateAffinePartial2D(points, reference, method=cv2.LMEDS)[0]


@pytest.mark.parametrize("index", range(6))
def test_what_moves_in_the_picture_is_the_lower_face(index):
    video, landmarks = film(index, lips(opening=1.0))
    change = np.abs(video[1] - video[0])
    left, right = landmarks[0, [3, 13], 0]
    top, bottom = landmarks[:, 50, 1].min() - 2, landmarks[:, 8, 1].max() + 8
    inside = change[int(top) : int(bottom), int(left) : int(right)]
    assert inside.sum() > 0.9 * change.sum()
    assert (landmarks[1] - landmarks[0])[27:48] == pytest.approx(0, abs=1e-4)  # nose and eyes stay


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("shape", [{"opening": 0.8}, {"rounding": 1.0}, {"width": 1.0}])
def test_lips_are_drawn_where_their_landmarks_are(index, shape):
    # Black lips on white skin can be measured in the picture.
    look = speaker(index, 0, STILL).look
    look = dataclasses.replace(
        look, skin=(245, 245, 245), lip=(0, 0, 0), light=0, contrast=1, beard=0, moustache=0
    )
    video, landmarks = Face(look).film(lips(**shape), STILL, np.random.default_rng(0))
    points = landmarks[1, 48:60]
    (left, top), (right, bottom) = np.floor(points.min(0)) - 4, np.ceil(points.max(0)) + 4
    dark = video[1, int(top) : int(bottom) + 1, int(left) : int(right) + 1] < 120
    rows, columns = np.flatnonzero(dark.any(1)) + top, np.flatnonzero(dark.any(0)) + left
    drawn = (columns.min(), rows.min(), columns.max(), rows.max())
    assert drawn == pytest.approx((*points.min(0), *points.max(0)), abs=1.5)


def test_landmarks_follow_the_parameters():
    def width(points):
        return points[54, 0] - points[48, 0]

    def gap(points):
        return points[66, 1] - points[62, 1]

    _, (rest, wide) = film(1, lips(opening=1.0))
    assert gap(rest) < 0.2
    assert gap(wide) > 8
    assert wide[8, 1] > rest[8, 1] + 4  # the chin
    _, (rest, rounded) = film(1, lips(rounding=1.0))
    assert width(rounded) < 0.85 * width(rest)
    _, (rest, spread) = film(1, lips(width=1.0))
    assert width(spread) > 1.08 * width(rest)


def test_points_are_ordered_as_ibug_does():
    _, (points, _) = film(2, lips(opening=0.6))
    assert (np.diff(points[:17, 0]) > 0).all()  # the jaw, from the left of the picture
    assert points[:17, 1].argmax() == 8
    assert (np.diff(points[48:55, 0]) > 0).all()
    assert (np.diff(points[54:60, 0]) < 0).all()
    assert points[57, 1] > points[66, 1] >= points[62, 1] > points[51, 1]
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[19, 1] < points[37, 1] < points[33, 1] < points[51, 1] < points[8, 1]


@pytest.mark.parametrize("index", range(0, 36, 5))
def test_eyes_are_where_the_landmarks_are(index):
    video, landmarks = film(index, lips())
    for eye in (slice(36, 42), slice(42, 48)):
        x, y = np.round(landmarks[0, eye].mean(0)).astype(int)
        patch = video[0, y - 3 : y + 4, x - 3 : x + 4]
        pupil = np.array(np.unravel_index(patch.argmin(), patch.shape)) - 3
        assert np.abs(pupil).max() <= 1


def test_mouths_are_where_crops_expect_them():
    x = (128.870, 92.522, 112.772, 145.525, 166.677)
    y = (137.303, 94.369, 94.944, 94.535, 93.566)
    reference = np.stack([x, y], 1).astype(np.float32)
    centres = []
    for index in range(36):
        _, landmarks = film(index, lips(opening=0.3), MOVING)
        points = landmarks[1]
        affine = fit(points[[33, 36, 39, 42, 45]], reference)
        centres.append(points[48:].mean(0) @ affine[:, :2].T + affine[:, 2])
    assert np.mean(centres, 0) == pytest.approx((129.3, 157.8), abs=1.5)
    assert np.ptp(centres, axis=0).max() < 14  # speakers differ
    assert np.std(centres, axis=0)[1] > 1


def test_crops_show_the_mouth_upright():
    path = np.repeat(lips(opening=1.0)[1:], 15, 0)
    video, landmarks = film(3, path, Difficulty(rotation=8, translation=6))
    crops = crop_mouths(video.astype(np.uint8), landmarks).astype(float)
    assert crops.shape == (15, 96, 96)
    # Turned and shifted heads give the same crop: its middle hardly changes.
    middle = crops[:, 24:72, 24:72]
    moved = np.abs(video[0] - video[-1])[40:120, 40:120].mean()
    assert np.abs(middle[0] - middle[-1]).mean() < 0.6 * moved


def test_people_differ_but_stay_themselves():
    voices, faces = set(), []
    for index in range(36):
        person = speaker(index, 0, MOVING)
        assert person == speaker(index, 0, MOVING)
        voices.add(person.voice.name)
        faces.append(film(index, lips())[0][0])
    assert len(voices) == 36
    assert {bool(speaker(i, 0, MOVING).look.beard) for i in range(36)} == {True, False}
    distance = [np.abs(a - b).mean() for i, a in enumerate(faces) for b in faces[:i]]
    assert min(distance) > 4
    assert speaker(0, 0, MOVING) != speaker(0, 1, MOVING)


def test_base_models_are_pretrained_on_voices_of_their_own():
    own = {speaker(FIRST_PRETRAINER + i, 0, MOVING).voice.name for i in range(60)}
    assert len(own) == PRETRAINING_VOICES
    assert not own & {speaker(i, 0, MOVING).voice.name for i in range(PRETRAINING_VOICES, 60)}


def test_camera_moves_blurs_and_is_noisy():
    path = np.zeros((30, 7))
    still, _ = film(4, path)
    moving, landmarks = film(4, path, MOVING)
    assert np.median(np.abs(still - still[0]).mean((1, 2))) == 0  # but for blinks
    assert np.abs(moving[0] - moving[1]).mean() > 1
    assert np.ptp(landmarks[:, 33], axis=0).max() > 1
    assert landmarks.min() > 0
    assert landmarks.max() < FRAME_SIZE
