"""A talking face, drawn: frames and the 68 iBUG landmarks in them.

A face is painted once on the 256 × 256 canvas of the reference face to which mouth crops are
aligned; each frame stretches its lower half with the jaw, draws the mouth, and films the canvas
with a camera that moves, blurs and adds noise. All of this happens in planar YUV 4:2:0: a canvas of
luma, and one of chroma with half the rows and columns.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from talking_face.difficulty import Difficulty
from talking_face.drift import drift
from talking_face.lips import FRAME_RATE, OPENING, PRESS, ROUNDING, TEETH, TONGUE, TUCK, WIDTH
from talking_face.speakers import Look

FRAME_SIZE = 160
_CANVAS = 256
_CENTRE = (129.5, 124.0)  # canvas point that is filmed in the middle of the frame
_SHIFT = 4  # fractional bits of drawn coordinates
_MOUTH = (slice(130, 202), slice(88, 172))  # rows and columns that a mouth can cover
_JAW = (slice(142, 232), slice(56, 204))  # rows and columns that the jaw's opening stretches
_MOUTH_CHROMA, _JAW_CHROMA = (
    tuple(slice(part.start // 2, part.stop // 2) for part in parts) for parts in (_MOUTH, _JAW)
)
_HALF_WIDTH, _GAP, _UPPER, _LOWER = 21.5, 20.0, 5.2, 6.8  # the mean mouth; gap when wide open
_MOUTH_Y = 156.8
_SIDE = np.linspace(-1, 1, 25)  # across the mouth, from its right corner (left in the picture)


class Face:
    """A speaker's face, ready to be filmed.

    Args:
        look: Its appearance.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._points = _still_points(look)
        self._open = _paint(look, self._points, eyes_open=True)
        self._shut = _paint(look, self._points, eyes_open=False)
        rows, columns = _JAW
        x, y = np.meshgrid(
            np.arange(columns.stop - columns.start, dtype=np.float32),
            np.arange(rows.stop - rows.start, dtype=np.float32),
        )
        chin = self._points[8, 1]
        height = (y + rows.start - 150) / (chin - 150)
        pull = np.where(height < 1, np.clip(height, 0, 1) ** 1.3, np.clip(2.4 - 1.4 * height, 0, 1))
        pull *= np.exp(-(((x + columns.start - _CENTRE[0]) / (52 * look.face_width)) ** 4))
        self._jaw = x, y, pull.astype(np.float32)
        self._jaw_chroma = tuple(np.ascontiguousarray(m[::2, ::2]) / 2 for m in self._jaw)

    def film(
        self, path: np.ndarray, difficulty: Difficulty, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Film lips that move along ``path`` (T, 7).

        Returns:
            Frames as planar YUV 4:2:0, uint8 ``(T, 240, 160)``, and landmarks in frame pixels,
            float32 ``(T, 68, 2)``.
        """
        look, frames = self._look, len(path)
        camera = _camera(look, frames, difficulty, rng)
        gain = look.contrast * float(np.exp(rng.normal(0, difficulty.brightness)))
        mouth = _Mouth(path, look, gain)
        opened, shut = (
            _planes(cv2.convertScaleAbs(canvas, alpha=gain)) for canvas in (self._open, self._shut)
        )
        blinks = _blinks(frames, rng)
        grain = rng.normal(0, look.noise, (2 * FRAME_SIZE, 2 * FRAME_SIZE)).astype(np.int16)
        lighter, darker = (np.clip(g, 0, 255).astype(np.uint8) for g in (grain, -grain))
        corners = rng.integers(0, FRAME_SIZE, (frames, 2))
        softness = cv2.getGaussianKernel(5, look.blur)

        half = FRAME_SIZE // 2
        colours = np.empty((half, half, 4), np.uint8)
        to_chroma = camera * [1, 1, 0.5]
        video = np.empty((frames, FRAME_SIZE * 3 // 2, FRAME_SIZE), np.uint8)
        for t in range(frames):
            luma, chroma = (plane.copy() for plane in (shut if blinks[t] else opened))
            _stretch(luma[_JAW], self._jaw, mouth.drop[t])
            mouth.draw(luma[_MOUTH], t)
            picture = video[t, :FRAME_SIZE]
            _shoot(luma, camera[t], picture)
            cv2.sepFilter2D(picture, -1, softness, softness, picture)
            row, column = corners[t]
            part = slice(row, row + FRAME_SIZE), slice(column, column + FRAME_SIZE)
            cv2.add(picture, lighter[part], picture)
            cv2.subtract(picture, darker[part], picture)

            _stretch(chroma[_JAW_CHROMA], self._jaw_chroma, mouth.drop[t])
            mouth.colour(chroma[_MOUTH_CHROMA], t)
            _shoot(chroma, to_chroma[t], colours)
            for channel, plane in enumerate(video[t, FRAME_SIZE:].reshape(2, half, half)):
                cv2.extractChannel(colours, channel, plane)

        points = np.repeat(self._points[None], frames, 0)
        lowered = np.sin(np.linspace(0, np.pi, 17)) ** 2
        points[:, :17, 1] += mouth.drop[:, None] * lowered
        points[:, 48:] = mouth.points
        landmarks = points @ camera[:, :, :2].transpose(0, 2, 1) + camera[:, None, :, 2]
        return video, landmarks.astype(np.float32)


class _Mouth:
    """The moving mouth on the canvas: contours of all frames at once, then drawn one by one.

    Args:
        path: Lip parameters (T, 7).
        look: Whose mouth.
        gain: Brightness of its colours.
    """

    def __init__(self, path: np.ndarray, look: Look, gain: float) -> None:
        opening, rounding, press, tuck = (
            path[:, i, None] for i in (OPENING, ROUNDING, PRESS, TUCK)
        )
        half = _HALF_WIDTH * look.mouth_width * (1 + 0.22 * path[:, WIDTH, None] - 0.36 * rounding)
        half = half * (1 - 0.06 * np.clip(opening, 0, 1))
        gap = _GAP * opening * (1 - 0.25 * rounding) * (1 - 0.6 * tuck) + 2.5 * tuck
        upper = _UPPER * look.upper_lip * (1 + 0.25 * rounding) * (1 - 0.45 * press)
        lower = _LOWER * look.lower_lip * (1 + 0.25 * rounding) * (1 - 0.4 * press - 0.45 * tuck)
        middle = _MOUTH_Y + look.mouth_height

        s = _SIDE[None]
        arch = 1 - s**2
        inner_half = half * (0.86 - 0.22 * np.clip(rounding, 0, 1))
        top = middle - 0.32 * gap
        bottom = middle + 0.68 * gap
        corner = middle + 0.22 * gap + look.corner
        level = corner + look.slant * s
        seam = level + (middle - corner) * arch**0.8
        inner_top = np.minimum(level + (top - corner) * arch**0.7, seam)
        inner_bottom = np.maximum(level + (bottom - corner) * arch**0.7, seam)
        bow = 0.28 * upper * np.exp(-((s / 0.16) ** 2))
        outer_top = level + (top - upper - corner) * arch**0.8 + bow
        outer_bottom = level + (bottom + lower - corner) * arch**0.65

        x_outer = _CENTRE[0] + half * s
        x_inner = _CENTRE[0] + inner_half * s
        self.drop = (0.68 * gap * 0.85)[:, 0].astype(np.float32)
        self.points = self._landmarks(
            x_outer, outer_top, outer_bottom, x_inner, inner_top, inner_bottom
        )

        self._upper = _polygon(x_outer, outer_top, x_inner, inner_top)
        self._lower = _polygon(x_outer, outer_bottom, x_inner, inner_bottom)
        self._inner = _polygon(x_inner, inner_top, x_inner, inner_bottom)
        self._seam = _fixed(np.stack([x_outer, np.broadcast_to(seam, x_outer.shape)], 2))
        shine = slice(8, 17)
        self._shine = _fixed(
            np.stack([x_outer, inner_bottom + 0.45 * (outer_bottom - inner_bottom)], 2)[:, shine]
        )
        self._is_open = (gap[:, 0] >= 0.6).tolist()

        # Upper teeth are fixed to the skull; protruding lips hide them.
        shown = np.clip(1 - rounding, 0, 1)
        upper_edge = np.maximum(middle + 0.8 - 4.0 * (1 - shown), top - 1)
        rest = np.maximum(bottom - upper_edge, 0)
        upper_teeth = upper_edge + np.clip(tuck, 0, 1) * (bottom - upper_edge)
        lower_teeth = bottom - 0.85 * path[:, TEETH, None] * shown * rest
        teeth = np.round(np.concatenate([upper_teeth, lower_teeth], 1) - _MOUTH[0].start)
        rows = self._inner[:, :, 1] >> _SHIFT
        # The first and last rows between the lips, and where teeth end and begin.
        lower_edge = np.maximum(teeth[:, 1], teeth[:, 0] + 1)
        limits = np.stack([rows.min(1) - 1, rows.max(1) + 3, teeth[:, 0], lower_edge], 1)
        self._rows = np.maximum(limits, 0).astype(int).tolist()
        tongue = path[:, TONGUE, None]
        self._tongue = _ellipses(bottom + 1 - tongue * 0.55 * gap, inner_half * 0.6, 2 + 0.22 * gap)
        tip = np.clip(tongue - 0.45, 0, 1) * 0.5 * gap
        self._tip = _ellipses(middle + 0.35 * gap, inner_half * 0.42, tip)
        lip, skin = np.array(look.lip, float), np.array(look.skin, float)
        self._upper_colour = _yuv(lip, 0.86 * gain)
        self._lower_colour = _yuv(lip, gain)
        self._shine_colour = _yuv(lip * 0.8 + 50, gain)
        self._seam_colour = _yuv(0.45 * lip + 0.1 * skin, gain)
        self._dark = _yuv(np.array([22, 18, 40]), gain)
        self._pink = _yuv(np.array([92, 84, 172]), 0.85 * gain)
        self._upper_white = _yuv(np.array([190, 205, 212]), gain)
        self._lower_white = _yuv(np.array([160, 175, 182]), gain)

    @staticmethod
    def _landmarks(
        x_outer, outer_top, outer_bottom, x_inner, inner_top, inner_bottom
    ) -> np.ndarray:
        """Return the iBUG points 48–67, (T, 20, 2)."""
        across = [0, 4, 8, 12, 16, 20, 24]  # of _SIDE
        top = np.stack([x_outer, outer_top], 2)[:, across]
        bottom = np.stack([x_outer, outer_bottom], 2)[:, across[5:0:-1]]
        across = [1, 6, 12, 18, 23]
        inside = np.stack([x_inner, inner_top], 2)[:, across]
        below = np.stack([x_inner, inner_bottom], 2)[:, [18, 12, 6]]
        return np.concatenate([top, bottom, inside, below], 1)

    def draw(self, patch: np.ndarray, t: int) -> None:
        """Draw frame ``t`` into ``patch``, the ``_MOUTH`` part of the canvas's luma, in place."""
        aa = cv2.LINE_AA
        cv2.fillPoly(patch, [self._upper[t]], self._upper_colour[0], aa, _SHIFT)
        cv2.fillPoly(patch, [self._lower[t]], self._lower_colour[0], aa, _SHIFT)
        cv2.polylines(patch, [self._shine[t]], False, self._shine_colour[0], 2, aa, _SHIFT)
        cv2.polylines(patch, [self._seam[t]], False, self._seam_colour[0], 1, aa, _SHIFT)
        if not self._is_open[t]:
            return
        first, last, upper, lower = self._rows[t]
        mask = np.zeros(patch.shape, np.uint8)
        cv2.fillPoly(mask, [self._inner[t]], 255, aa, _SHIFT)
        inside = np.full(patch.shape, self._dark[0], np.uint8)
        _ellipse(inside, self._tongue[t], self._pink[0])
        inside[:upper] = self._upper_white[0]
        inside[lower:] = self._lower_white[0]
        if self._tip[t][3] > 0.3 * (1 << _SHIFT):
            _ellipse(inside, self._tip[t], self._pink[0])
        patch, inside = patch[first:last], inside[first:last]
        change = cv2.subtract(inside, patch, dtype=cv2.CV_16S)
        change = cv2.multiply(change, mask[first:last], scale=1 / 255, dtype=cv2.CV_16S)
        cv2.add(patch, change, patch, dtype=cv2.CV_8U)

    def colour(self, patch: np.ndarray, t: int) -> None:
        """Draw frame ``t`` in the canvas's chroma: the lips and the gap between them."""
        shift = _SHIFT + 1
        cv2.fillPoly(patch, [self._upper[t]], self._upper_colour[1], cv2.LINE_AA, shift)
        cv2.fillPoly(patch, [self._lower[t]], self._lower_colour[1], cv2.LINE_AA, shift)
        if not self._is_open[t]:
            return
        cv2.fillPoly(patch, [self._inner[t]], self._upper_white[1], cv2.LINE_AA, shift)
        # The tongue, between the teeth; where the lip hides it, colours hardly differ.
        x, y, *axes = self._tongue[t]
        _, _, upper, lower = (row // 2 for row in self._rows[t])
        if upper < lower:
            shape = x, y - (upper << shift), *axes
            _ellipse(patch[upper:lower], shape, self._pink[1], shift)


def _stretch(patch: np.ndarray, jaw: tuple[np.ndarray, ...], drop: float) -> None:
    """Lower the jaw in a plane's ``_JAW`` part, in place."""
    x, y, pull = jaw
    patch[:] = cv2.remap(patch, x, y - pull * drop, cv2.INTER_LINEAR)


def _shoot(canvas: np.ndarray, camera: np.ndarray, picture: np.ndarray) -> None:
    """Film a plane of the canvas."""
    size = picture.shape[1::-1]
    cv2.warpAffine(canvas, camera, size, picture, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)


def _planes(picture: np.ndarray) -> list[np.ndarray]:
    """Return luma, uint8 ``(H, W)``, and chroma, uint8 ``(H/2, W/2, 4)``, of a BGR picture.

    Chroma is in the first two channels: OpenCV warps four faster than two.
    """
    height, width = picture.shape[:2]
    yuv = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    chroma = np.zeros((height // 2, width // 2, 4), np.uint8)
    chroma[:, :, :2] = yuv[height:].reshape(2, height // 2, width // 2).transpose(1, 2, 0)
    return [yuv[:height], chroma]


def _yuv(colour: np.ndarray, gain: float) -> list[tuple[int, ...]]:
    """Return a colour as `_planes` has it."""
    picture = np.full((2, 2, 3), _shade(colour, gain), np.uint8)
    luma, chroma = _planes(picture)
    return [(int(luma[0, 0]),), tuple(chroma[0, 0].tolist())]


def _polygon(x_top, y_top, x_bottom, y_bottom) -> np.ndarray:
    """Return the outlines (T, N, 2) between two curves (T, N/2), in fixed point."""
    top = np.stack([x_top, np.broadcast_to(y_top, x_top.shape)], 2)
    bottom = np.stack([x_bottom, np.broadcast_to(y_bottom, x_bottom.shape)], 2)
    return _fixed(np.concatenate([top, bottom[:, ::-1]], 1))


def _fixed(points: np.ndarray) -> np.ndarray:
    """Return canvas points as fixed-point coordinates of the ``_MOUTH`` part."""
    origin = (_MOUTH[1].start, _MOUTH[0].start)
    return np.round((points - origin) * (1 << _SHIFT)).astype(np.int32)


def _ellipses(row: np.ndarray, half_width: np.ndarray, half_height: np.ndarray) -> list:
    """Return ellipses in the middle of the mouth, in fixed point: (x, y, …) of each frame."""
    row, half_width, half_height = np.broadcast_arrays(row, half_width, half_height)
    x = np.full_like(row, _CENTRE[0] - _MOUTH[1].start)
    shapes = np.concatenate([x, row - _MOUTH[0].start, half_width, half_height], 1)
    return np.round(shapes * (1 << _SHIFT)).astype(int).tolist()


def _ellipse(
    patch: np.ndarray, shape: Sequence[int], colour: tuple[int, ...], shift: int = _SHIFT
) -> None:
    x, y, half_width, half_height = shape
    axes = half_width, half_height
    cv2.ellipse(patch, (x, y), axes, 0, 0, 360, colour, -1, cv2.LINE_AA, shift)


def _shade(colour: np.ndarray | tuple[int, ...], gain: float) -> tuple[int, int, int]:
    blue, green, red = (int(min(max(value * gain, 0), 255)) for value in colour)
    return blue, green, red


def _camera(
    look: Look, frames: int, difficulty: Difficulty, rng: np.random.Generator
) -> np.ndarray:
    """Return the affine maps (T, 2, 3) from the canvas to the frames."""
    sway = drift(frames, 4, 31, rng) + rng.normal(0, 0.7, 4)
    scale = look.camera_scale * np.exp(difficulty.zoom * sway[:, 0])
    angle = np.deg2rad(difficulty.rotation * sway[:, 1])
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)
    to = FRAME_SIZE / 2 + np.array(look.camera_shift) + difficulty.translation * sway[:, 2:]
    offset = to - linear @ np.array(_CENTRE)
    return np.concatenate([linear, offset[:, :, None]], 2)


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return in which frames (T,) the eyes are shut."""
    shut = np.zeros(frames, bool)
    for start in np.flatnonzero(rng.random(frames) < 0.3 / FRAME_RATE):
        shut[start : start + 4] = True
    return shut


def _still_points(look: Look) -> np.ndarray:
    """Return the 68 points of the face at rest on the canvas; those of the mouth are zero."""
    middle = _CENTRE[0]
    points = np.zeros((68, 2))
    turn = np.linspace(0, np.pi, 17)
    cosine, sine = np.cos(turn), np.sin(turn)
    points[:17, 0] = middle - 55 * look.face_width * np.sign(cosine) * np.abs(cosine) ** 0.8
    points[:17, 1] = 97 + (91 + look.chin) * sine**0.95
    arch = np.array([3.0, -1.0, -2.5, -2.0, 0.5])
    points[17:22] = np.stack([np.linspace(84, 118, 5), 81 + look.brow + arch], 1)
    points[22:27] = np.stack([np.linspace(141, 175, 5), 81 + look.brow + arch[::-1]], 1)
    points[27:31] = np.stack([np.full(4, middle), np.linspace(95, 127 + look.nose_length, 4)], 1)
    base = np.array([134.0, 136.0, 137.3, 136.0, 134.0]) + look.nose_length
    points[31:36] = np.stack([128.87 + np.array([-10, -5, 0, 5, 10]), base], 1)
    points[36:42] = [
        (92.52, 94.37), (98.5, 90.8), (107, 90.8), (112.77, 94.94), (107, 98.2), (98.5, 98.0),
    ]  # fmt: skip
    points[42:48] = [
        (145.53, 94.54), (151.5, 90.8), (160.5, 90.8), (166.68, 93.57), (160.5, 98), (151.5, 98.2),
    ]  # fmt: skip
    points[17:27, 0] = middle + (points[17:27, 0] - middle) * look.eye_distance
    points[36:48, 0] = middle + (points[36:48, 0] - middle) * look.eye_distance
    return points


def _paint(look: Look, points: np.ndarray, *, eyes_open: bool) -> np.ndarray:
    """Return the canvas, uint8 ``(256, 256, 3)`` BGR: all of the face but the mouth."""
    rng = np.random.default_rng(0)
    skin = np.array(look.skin, float)
    canvas = np.empty((_CANVAS, _CANVAS, 3), np.uint8)
    canvas[:] = look.backdrop
    line = {"lineType": cv2.LINE_AA}

    def at(point: np.ndarray) -> tuple[int, int]:
        return round(float(point[0])), round(float(point[1]))

    middle = round(_CENTRE[0])
    width = round(62 * look.face_width)
    shirt = _shade(255 - np.array(look.backdrop, float), 0.6)
    cv2.ellipse(canvas, (middle, 262), (120, 48), 0, 0, 360, shirt, -1, **line)
    cv2.rectangle(canvas, (middle - 30, 170), (middle + 30, 226), _shade(skin, 0.72), -1)
    cv2.ellipse(
        canvas,
        (middle, round(88 - look.hair_height)),
        (width + 4, 72),
        0,
        0,
        360,
        look.hair,
        -1,
        **line,
    )
    # Head: the jaw line below, an ellipse above.
    jaw = np.round(points[:17]).astype(np.int32)
    cv2.fillPoly(canvas, [jaw], look.skin, **line)
    forehead = (round(55 * look.face_width), 50)
    cv2.ellipse(canvas, (middle, 98), forehead, 0, 180, 360, look.skin, -1, **line)

    canvas = cv2.GaussianBlur(canvas, (0, 0), 1.2).astype(np.float32)
    y, x = np.mgrid[:_CANVAS, :_CANVAS].astype(np.float32)

    def glow(cx: float, cy: float, rx: float, ry: float, amount: float) -> None:
        """Lighten (or darken) an elliptic part of the picture smoothly."""
        bump = np.exp(-(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2))
        canvas[:] *= (1 + amount * bump)[:, :, None]

    for side in (-1, 1):
        glow(middle + side * 29 * look.eye_distance, 92, 18, 10, -0.20)  # eye sockets
        glow(middle + side * 34, 128, 18, 14, 0.07)  # cheeks
        glow(middle + side * 27, 150, 5, 16, -0.10)  # folds beside the mouth
        glow(middle + side * 10, 120, 5, 22, -0.08)  # sides of the nose
    glow(middle, 115, 4, 20, 0.10)  # bridge of the nose
    glow(middle, points[33, 1] - 6, 8, 6, 0.08)  # its tip
    glow(middle, points[33, 1] + 3, 12, 3.5, -0.20)  # its shadow
    glow(middle, 174 + look.mouth_height, 16, 4, -0.14)  # under the lower lip
    glow(middle, points[8, 1] + 12, 60, 12, -0.25)  # under the chin
    glow(middle, 70, 40, 18, 0.05)  # forehead

    stubble = rng.normal(0, 1, canvas.shape[:2]).astype(np.float32)
    hair = np.array(look.hair, np.float32)
    if look.beard > 0:
        inside = np.zeros(canvas.shape[:2], np.uint8)
        cv2.fillPoly(inside, [jaw], 255, **line)
        lower = 1 / (1 + np.exp(-(y - 152 - np.abs(x - middle) * -0.35) / 3))
        lower *= cv2.GaussianBlur(inside, (0, 0), 2) / 255
        weight = look.beard * lower * np.clip(0.75 + 0.2 * stubble, 0, 1)
        canvas += weight[:, :, None] * (hair - canvas)
    if look.moustache > 0:
        row = (points[33, 1] + _MOUTH_Y - 5 + look.mouth_height) / 2
        bump = np.exp(-(((x - middle) / 24) ** 4) - ((y - row) / 5) ** 2)
        weight = look.moustache * bump * np.clip(0.8 + 0.2 * stubble, 0, 1)
        canvas += weight[:, :, None] * (hair - canvas)

    canvas *= (1 + 0.30 * look.light * (x - middle) / 128)[:, :, None]
    canvas += cv2.GaussianBlur(stubble, (0, 0), 1.0)[:, :, None] * 6  # texture of the skin
    canvas = np.clip(canvas, 0, 255).astype(np.uint8)

    for outline, brow in ((points[36:42], points[17:22]), (points[42:48], points[22:27])):
        lid = np.round(outline).astype(np.int32)
        centre = outline.mean(0)
        if eyes_open:
            cv2.fillPoly(canvas, [lid], (215, 220, 222), **line)
            cv2.circle(canvas, at(centre), 4, look.eye, -1, **line)
            cv2.circle(canvas, at(centre), 2, (15, 15, 15), -1, **line)
            cv2.polylines(canvas, [lid[:4]], False, _shade(skin, 0.35), 1, **line)
        else:
            cv2.polylines(canvas, [lid[[0, 5, 4, 3]]], False, _shade(skin, 0.35), 1, **line)
        arch = np.round(brow).astype(np.int32)
        cv2.polylines(canvas, [arch], False, _shade(look.hair, 0.8), 3, **line)
    for side in (-5, 5):
        cv2.ellipse(
            canvas, at(points[33] + (side, -1.5)), (3, 2), 0, 0, 360, _shade(skin, 0.4), -1, **line
        )
    if look.glasses:
        for centre in (points[36:42].mean(0), points[42:48].mean(0)):
            cv2.ellipse(canvas, at(centre), (17, 13), 0, 0, 360, (30, 30, 30), 1, **line)
        cv2.line(canvas, at((middle - 9, 93)), at((middle + 9, 93)), (30, 30, 30), 1, **line)
    return cv2.GaussianBlur(canvas, (3, 3), 0.6)
