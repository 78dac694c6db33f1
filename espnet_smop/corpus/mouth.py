"""From facial landmarks to 96×96 mouth crops, in the geometry that AV-HuBERT was trained on.

A similarity transform (rotation, scale, shift) of points that speech does not move aligns the face
with a reference face on a canvas of 256×256 pixels; the crop is the square around the mouth's
centre on that canvas. Weights trained on crops of this geometry lose accuracy on crops of another
one, so these constants must not be tuned.

Landmarks are ``(T, P, 2)`` in pixels, x before y, with P = 68 (iBUG's order) or P = 4 (eye on the
picture's left, eye on its right, tip of the nose, centre of the mouth), and NaN in frames without
a face.
"""

import cv2
import numpy as np

CROP_SIZE = 96
SMOOTHING_RADIUS = 6
"""Frames on either side over which landmarks are averaged."""

_STABLE = {68: [33, 36, 39, 42, 45], 4: [0, 1, 2]}
_MOUTH = {68: slice(48, 68), 4: slice(3, 4)}
# Positions of the stable points on the reference face.
_REFERENCE = {
    68: np.array(
        [
            (128.870, 137.303),
            (92.522, 94.369),
            (112.772, 94.944),
            (145.525, 94.535),
            (166.677, 93.566),
        ]
    ),
    4: np.array([(102.07, 94.27), (156.36, 93.58), (128.870, 137.303)]),
}


class NoFaceError(RuntimeError):
    """No frame of a clip has landmarks."""


def check_landmarks(landmarks: np.ndarray) -> None:
    """Raise ValueError unless the array is ``(T, 68, 2)`` or ``(T, 4, 2)``."""
    if landmarks.ndim != 3 or landmarks.shape[1] not in _STABLE or landmarks.shape[2] != 2:
        raise ValueError(
            f"landmarks have shape {landmarks.shape}, expected (frames, 68, 2) or (frames, 4, 2)"
        )


def fill_missing(landmarks: np.ndarray) -> np.ndarray:
    """Fill frames without a face.

    Points are interpolated linearly between the nearest frames with a face; before the first and
    after the last, that frame's points are repeated.

    Raises:
        NoFaceError: no frame has one.
    """
    found = np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))
    if not len(found):
        raise NoFaceError("no face found in any frame")
    if len(found) == len(landmarks):
        return landmarks
    points = landmarks.reshape(len(landmarks), -1)
    frames = np.arange(len(landmarks))
    filled = [np.interp(frames, found, column[found]) for column in points.T]
    return np.stack(filled, axis=1).reshape(landmarks.shape)


def smooth(landmarks: np.ndarray, radius: int = SMOOTHING_RADIUS) -> np.ndarray:
    """Average every frame's points over neighbouring frames, keeping the frame's own mean.

    Shape, scale and rotation are averaged, but not position: the crop follows the head. The window
    shrinks symmetrically at the clip's start and end.
    """
    frames = np.arange(len(landmarks))
    reach = np.minimum(radius, np.minimum(frames, frames[::-1]))
    sums = np.concatenate([np.zeros((1, *landmarks.shape[1:])), landmarks.cumsum(axis=0)])
    means = (sums[frames + reach + 1] - sums[frames - reach]) / (2 * reach + 1)[:, None, None]
    return means - means.mean(axis=1, keepdims=True) + landmarks.mean(axis=1, keepdims=True)


def similarity(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the similarity transforms that map points closest to a reference.

    Least squares (Umeyama 1991) in its closed form for the plane: with points as complex numbers,
    w = a·z + b.

    Args:
        points: ``(T, P, 2)``.
        reference: ``(P, 2)``.

    Returns:
        ``(T, 2, 3)`` matrices as OpenCV takes them.
    """
    z = points[..., 0] + 1j * points[..., 1]
    w = reference[:, 0] + 1j * reference[:, 1]
    z_mean = z.mean(axis=1, keepdims=True)
    z_centred = z - z_mean
    spread = (np.abs(z_centred) ** 2).sum(axis=1)
    a = (z_centred.conj() * (w - w.mean())).sum(axis=1) / np.maximum(spread, 1e-12)
    b = w.mean() - a * z_mean[:, 0]
    rows = [np.stack([a.real, -a.imag, b.real], 1), np.stack([a.imag, a.real, b.imag], 1)]
    return np.stack(rows, axis=1)


def crop_transforms(landmarks: np.ndarray) -> np.ndarray:
    """Return each frame's transform from the picture to its crop, ``(T, 2, 3)``.

    The crop is aligned to whole pixels of the canvas, as in the published preparation.

    Raises:
        NoFaceError: no frame has a face.
    """
    check_landmarks(landmarks)
    points = landmarks.shape[1]
    landmarks = smooth(fill_missing(landmarks.astype(np.float64)))
    matrices = similarity(landmarks[:, _STABLE[points]], _REFERENCE[points])
    mouth = landmarks[:, _MOUTH[points]].mean(axis=1)
    centre = np.einsum("tij,tj->ti", matrices[:, :, :2], mouth) + matrices[:, :, 2]
    matrices[:, :, 2] -= np.round(centre - CROP_SIZE / 2)
    return matrices


def centre_transform(height: int, width: int) -> np.ndarray:
    """Return the transform of the centre crop, for a picture without a face.

    The central square of half the shorter side, scaled to 96×96: on LRS3's 224×224 face tracks it
    is the central 112×112, which holds the mouth.
    """
    scale = 2 * CROP_SIZE / min(height, width)
    shift = CROP_SIZE / 2 - scale * np.array([width, height]) / 2
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


def crop(picture: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Cut a uint8 ``(96, 96)`` crop out of a grey picture ``(H, W)``; black beyond its border."""
    return cv2.warpAffine(picture, transform, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR)
