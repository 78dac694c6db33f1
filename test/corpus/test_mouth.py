import cv2
import numpy as np
import pytest

from espnet_smop.corpus import mouth

STABLE = [33, 36, 39, 42, 45]
REFERENCE = np.array(
    [
        (128.870, 137.303),
        (92.522, 94.369),
        (112.772, 94.944),
        (145.525, 94.535),
        (166.677, 93.566),
    ]
)


def similarity_by_least_squares(points, reference):
    """Solve for (a, b, x, y) in [a -b x; b a y] as a linear system."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, reference, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, x, y = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, x], [b, a, y]])


def test_similarity_is_the_least_squares_solution(make):
    landmarks = make.landmarks(1, angle=0.3)[0][STABLE]
    expected = similarity_by_least_squares(landmarks, REFERENCE)
    np.testing.assert_allclose(mouth.similarity(landmarks[None], REFERENCE)[0], expected, atol=1e-9)


def test_crop_is_the_published_one(make):
    """Smooth by a loop, warp to 256×256, cut the square: the published steps, one by one."""
    frames = 20
    random = np.random.default_rng(0)
    landmarks = make.landmarks(frames, motion=1.5) + random.normal(0, 1, (frames, 68, 2))
    picture = cv2.GaussianBlur(random.integers(0, 256, (224, 224)).astype(np.uint8), (9, 9), 2)
    transforms = mouth.crop_transforms(landmarks)
    for t in range(frames):
        reach = min(6, t, frames - 1 - t)
        smoothed = np.mean([landmarks[x] for x in range(t - reach, t + reach + 1)], axis=0)
        smoothed += landmarks[t].mean(axis=0) - smoothed.mean(axis=0)
        matrix = similarity_by_least_squares(smoothed[STABLE], REFERENCE)
        canvas = cv2.warpAffine(picture, matrix, (256, 256), flags=cv2.INTER_LINEAR)
        x, y = np.mean(smoothed[48:68] @ matrix[:, :2].T + matrix[:, 2], axis=0)
        left, top = round(x - 48), round(y - 48)
        expected = canvas[top : top + 96, left : left + 96].astype(int)
        got = mouth.crop(picture, transforms[t])
        assert got.shape == (96, 96) and got.dtype == np.uint8
        # OpenCV rounds coordinates to 1/32 pixel, differently at another origin.
        assert np.abs(got - expected).max() <= 3
        assert np.abs(got - expected).mean() < 0.3


def test_mouth_is_in_the_middle(make):
    landmarks = make.landmarks(30, mouth=(100, 130), angle=0.2, motion=0.7)
    transforms = mouth.crop_transforms(landmarks)
    centres = landmarks[:, 48:68].mean(axis=1)
    mapped = np.einsum("tij,tj->ti", transforms[:, :, :2], centres) + transforms[:, :, 2]
    assert np.abs(mapped - 48).max() <= 1


def test_four_points_give_nearly_the_same_crop(make):
    full = make.landmarks(10)
    eyes = np.stack([full[:, 36:42].mean(axis=1), full[:, 42:48].mean(axis=1)], axis=1)
    four = np.concatenate([eyes, full[:, 33:34], full[:, 48:68].mean(axis=1, keepdims=True)], 1)
    a, b = mouth.crop_transforms(full), mouth.crop_transforms(four)
    scale = [np.hypot(m[:, 0, 0], m[:, 1, 0]) for m in (a, b)]
    np.testing.assert_allclose(*scale, rtol=0.1)


def test_missing_frames_are_interpolated():
    landmarks = np.full((6, 4, 2), np.nan)
    landmarks[1], landmarks[4] = 10.0, 40.0
    filled = mouth.fill_missing(landmarks)
    np.testing.assert_allclose(filled[:, 0, 0], [10, 10, 20, 30, 40, 40])
    with pytest.raises(mouth.NoFaceError):
        mouth.fill_missing(np.full((3, 68, 2), np.nan))


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(5, 60, 2\), expected \(frames, 68, 2\)"):
        mouth.crop_transforms(np.zeros((5, 60, 2)))


def test_fallback_crop_is_the_central_half():
    picture = np.zeros((224, 300), np.uint8)
    picture[56:168, 94:206] = 200  # the central 112×112
    assert mouth.crop(picture, mouth.centre_transform(224, 300))[2:-2, 2:-2].min() == 200
    picture = 200 - picture
    assert mouth.crop(picture, mouth.centre_transform(224, 300))[2:-2, 2:-2].max() == 0
