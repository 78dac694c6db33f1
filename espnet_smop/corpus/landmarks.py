"""Facial landmarks of a clip: from files beside it, from dlib, or from a class of your own.

A *provider* is called with a recording's id and its video file, and returns float32
``(T, P, 2)``: for each of the source's frames P points in pixels, NaN where no face was found
(P and their order: `espnet_smop.corpus.mouth`). A provider that looks at the pictures may have a
method ``from_video``, called instead with the id and a `Video`, so that the crops need no second
decoding. Named providers are in `PROVIDERS`; ``module:Class`` names any other, which is built with
``--landmarks_conf``'s values. `DetectedLandmarks` turns a detector of single pictures into a
provider.
"""

import importlib.util
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from espnet_smop.class_path import import_class
from espnet_smop.corpus import array_pickle
from espnet_smop.corpus.media import Picture, Video
from espnet_smop.corpus.mouth import check_landmarks, fill_missing

SUFFIXES = (".npy", ".npz", ".pkl")
"""Suffixes of landmark files, in the order in which they are looked for beside a clip."""

LandmarkProvider = Callable[[str, str], np.ndarray]


class LandmarkError(RuntimeError):
    """Landmarks cannot be read or detected; the message is one line with cause and remedy."""


def find_landmarks(provider: LandmarkProvider, recording: str, video: Video) -> np.ndarray:
    """Return a provider's landmarks ``(T, P, 2)`` of a video, decoded once if it allows that."""
    if hasattr(provider, "from_video"):
        return provider.from_video(recording, video)
    return provider(recording, video.path)


# -- files -----------------------------------------------------------------------------------------


def _load_npy(file: io.BufferedIOBase) -> Any:
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if header and header(file)[2].hasobject:
        # An array of objects is a pickle within the file.
        return array_pickle.load(file)
    file.seek(0)
    return np.load(file, allow_pickle=False)


def read_landmarks(path: str | Path) -> np.ndarray:
    """Read a landmark file without executing anything in it.

    Formats: ``.npy`` with ``(T, P, 2)``; ``.npz`` with one such array, or with one named
    ``landmarks`` or ``data``; ``.pkl`` (or an object array in ``.npy``) with a list of one
    ``(P, 2)`` array or None per frame, as the public preparations write it. Pickles are read by
    a reader that knows numpy arrays and nothing else (``array_pickle.py``).

    Returns:
        float32 ``(T, P, 2)``, NaN in frames without a face.

    Raises:
        LandmarkError: unreadable, another format, or a pickle that names other classes.
    """
    remedy = "give landmarks of this clip as .npy (frames, 68, 2), or use --landmarks dlib"
    try:
        with open(path, "rb") as file:
            if Path(path).suffix == ".npz":
                with np.load(file, allow_pickle=False) as arrays:
                    names = [n for n in ("landmarks", "data") if n in arrays] or arrays.files
                    if len(arrays.files) > 1 and names == arrays.files:
                        raise ValueError(f"arrays {arrays.files}, none named landmarks or data")
                    content = arrays[names[0]]
            elif Path(path).suffix == ".npy":
                content = _load_npy(file)
            else:
                content = array_pickle.load(file)
        landmarks = _stack(content)
        check_landmarks(landmarks)
    except FileNotFoundError:
        raise LandmarkError(f"{path}: no such landmark file; {remedy}") from None
    except Exception as e:  # a malformed pickle may raise anything
        cause = " ".join(str(e).split())
        raise LandmarkError(f"{path}: not a landmark file ({cause}); {remedy}") from None
    return landmarks


def _stack(content: Any) -> np.ndarray:
    if isinstance(content, np.ndarray) and not content.dtype.hasobject:
        return content.astype(np.float32)
    frames = [None if f is None or not len(f) else np.asarray(f, np.float32) for f in content]
    shape = next((f.shape for f in frames if f is not None), (68, 2))
    missing = np.full(shape, np.nan, np.float32)
    return np.stack([missing if f is None else f for f in frames])


def find_beside(clip: Path) -> Path | None:
    """Return the landmark file beside a clip (same name, `SUFFIXES`), or None."""
    return next((p for s in SUFFIXES if (p := clip.with_suffix(s)).is_file()), None)


class FileLandmarks:
    """Precomputed landmarks, one file per recording (``landmarks.scp``)."""

    def __init__(self, paths: Mapping[str, str]):
        self.paths = paths

    def __call__(self, recording: str, video: str) -> np.ndarray:
        """Read the recording's file."""
        if recording not in self.paths:
            raise LandmarkError(
                f"{video}: landmarks.scp has no file for recording {recording}; "
                "add it, or use --landmarks auto or dlib"
            )
        return read_landmarks(self.paths[recording])


_NO_DLIB = (
    "landmarks by dlib need the packages dlib-bin and face-recognition-models: "
    "`pip install dlib-bin face-recognition-models`, or give landmark files"
)

# -- detection -------------------------------------------------------------------------------------


class DetectedLandmarks:
    """Landmarks detected on every k-th picture, with the head tracked in between.

    Between two pictures with points, these are interpolated for the face's shape, while its
    position follows the optical flow (the median over the points, after Lucas and Kanade 1981),
    corrected to meet the next detection. `benchmarks/landmarks.py` measures how much the crops
    differ from detection on every picture.

    Args:
        detect: from a picture to points ``(P, 2)``, or to None where there is no face.
        every: detect on every k-th picture. After a picture without a face, every picture
            is tried until a face is found.
        rgb: pictures are passed as uint8 ``(H, W, 3)`` instead of grey ``(H, W)``.

    Attributes:
        seen: source frames of the last video in which a face was found, in order.
        progress: if set, called with every picture, also those that are skipped.
    """

    def __init__(
        self,
        detect: Callable[[np.ndarray], np.ndarray | None],
        *,
        every: int = 3,
        rgb: bool = False,
    ):
        if every < 1:
            raise ValueError(f"every is {every}, expected 1 or more")
        self.detect = detect
        self.every = every
        self.rgb = rgb
        self.seen: list[int] = []
        self.progress: Callable[[Picture], None] | None = None

    def __call__(self, recording: str, video: str) -> np.ndarray:
        """Detect in a video file."""
        return self.from_video(recording, Video(video))

    def from_video(self, recording: str, video: Video) -> np.ndarray:
        """Detect in a video's pictures."""
        found: dict[int, np.ndarray] = {}
        path: dict[int, np.ndarray] = {}  # where the face went, in pixels
        due = 0
        points = before = None
        here = np.zeros(2)
        for position, picture in enumerate(video):
            grey = picture.grey()
            if points is not None:
                step = _flow(before, grey, points)
                here, points = here + step, points + step
            path[picture.index], before = here, grey
            if position >= due:
                seen = self.detect(picture.rgb() if self.rgb else grey)
                if seen is not None:
                    found[picture.index] = points = np.asarray(seen, np.float32)
                    due = position + self.every
            if self.progress is not None:
                self.progress(picture)
        self.seen = sorted(found)
        return _between(found, path)


def _flow(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the movement (x, y) of a face from one grey picture to the next."""
    start = points.astype(np.float32)[:, None]
    moved, tracked, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, winSize=(15, 15))
    steps = (moved - start)[tracked.astype(bool)[:, 0], 0]
    return np.median(steps, axis=0) if len(steps) else np.zeros(2, np.float32)


def _between(found: Mapping[int, np.ndarray], path: Mapping[int, np.ndarray]) -> np.ndarray:
    """Interpolate ``(T, P, 2)`` from the pictures with points and the face's path.

    The points relative to the path are interpolated. Frames of the source that were not
    read, because it has more than 25 a second, are NaN; without any points all are.
    """
    shape = next((points.shape for points in found.values()), (68, 2))
    landmarks = np.full((max(path) + 1, *shape), np.nan, np.float32)
    if not found:
        return landmarks
    for index, points in found.items():
        landmarks[index] = points - path[index]
    filled = fill_missing(landmarks)
    landmarks[:] = np.nan
    for index, here in path.items():
        landmarks[index] = filled[index] + here
    return landmarks


class DlibLandmarks(DetectedLandmarks):
    """dlib's frontal face detector and 68-point predictor, with which AV-HuBERT's crops were made.

    Args:
        every: detect on every k-th picture.
        predictor: the predictor's file; None takes the one of ``face-recognition-models``.
        upsample: if no face is found, retry with the picture enlarged by 2 to this power.

    Of several faces the largest is taken.

    Attributes:
        most_faces: most faces found in one picture of the last video.
    """

    def __init__(self, *, every: int = 3, predictor: str | None = None, upsample: int = 1):
        try:
            import dlib
        except ImportError:
            raise LandmarkError(_NO_DLIB) from None
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(predictor or _packaged_predictor())
        self._enlargements = [0, upsample] if upsample else [0]
        self.most_faces = 0
        super().__init__(self._detect, every=every)

    def from_video(self, recording: str, video: Video) -> np.ndarray:
        """Detect in a video's pictures."""
        self.most_faces = 0
        self._enlargements.sort()  # a clip's result must not depend on the one before
        return super().from_video(recording, video)

    def _detect(self, picture: np.ndarray) -> np.ndarray | None:
        for enlargement in self._enlargements:
            faces = self._detector(picture, enlargement)
            if faces:
                break
        else:
            return None
        self.most_faces = max(self.most_faces, len(faces))
        # The next picture's face is as large as this one's: look there first.
        self._enlargements.sort(key=lambda other: other != enlargement)
        face = max(faces, key=lambda box: box.area())
        return np.array([(p.x, p.y) for p in self._predictor(picture, face).parts()], np.float32)


def _packaged_predictor() -> str:
    # Found, not imported: the package's own code needs pkg_resources, which setuptools has dropped.
    package = importlib.util.find_spec("face_recognition_models")
    if package is None:
        raise LandmarkError(
            "dlib's 68-point model is missing: `pip install face-recognition-models`, or name a "
            "file with --landmarks_conf predictor=FILE"
        )
    folder = Path(next(iter(package.submodule_search_locations)), "models")
    return str(folder / "shape_predictor_68_face_landmarks.dat")


def check_landmarks_available(name: str) -> None:
    """Check that a provider's packages are installed, without loading them.

    Args:
        name: as in `build_landmarks`; ``auto`` counts as dlib.

    Raises:
        LandmarkError: they are not, or there is no such provider.
    """
    if name in ("auto", "dlib"):
        if importlib.util.find_spec("dlib") is None:
            raise LandmarkError(_NO_DLIB)
        _packaged_predictor()
    elif name not in PROVIDERS:
        try:
            _provider_class(name)
        except ValueError as e:
            raise LandmarkError(f"--landmarks {name}: {e}") from None


# -- choice ----------------------------------------------------------------------------------------


class AutoLandmarks:
    """A recording's landmark file if it has one, otherwise dlib (loaded when first needed)."""

    def __init__(self, paths: Mapping[str, str], **dlib_options: Any):
        self._files = FileLandmarks(paths)
        self._dlib_options = dlib_options
        self._dlib: DlibLandmarks | None = None

    def __call__(self, recording: str, video: str) -> np.ndarray:
        """Read the recording's file, or detect in the video file."""
        return self.from_video(recording, Video(video))

    def from_video(self, recording: str, video: Video) -> np.ndarray:
        """Read the recording's file, or detect in the video's pictures."""
        if recording in self._files.paths:
            return self._files(recording, video.path)
        if self._dlib is None:
            self._dlib = DlibLandmarks(**self._dlib_options)
        return self._dlib.from_video(recording, video)


PROVIDERS: dict[str, Callable[..., LandmarkProvider]] = {
    "auto": AutoLandmarks,
    "files": FileLandmarks,
    "dlib": lambda paths, **options: DlibLandmarks(**options),
}


def _provider_class(name: str) -> type:
    if ":" not in name:
        raise LandmarkError(
            f"unknown landmark provider '{name}'; choose from {', '.join(PROVIDERS)} "
            "or name your own as module:Class"
        )
    return import_class(name)


def build_landmarks(
    name: str, *, paths: Mapping[str, str] | None = None, **options: Any
) -> LandmarkProvider:
    """Build a provider.

    Args:
        name: a key of `PROVIDERS`, or ``module:Class`` of your own, built as ``Class(**options)``.
        paths: recording → landmark file.
        options: the provider's own (``--landmarks_conf``).

    Raises:
        LandmarkError: unknown name, class that cannot be imported, or options it does not take.
    """
    try:
        if name in PROVIDERS:
            return PROVIDERS[name](paths or {}, **options)
        return _provider_class(name)(**options)
    except (ImportError, TypeError, ValueError) as e:
        raise LandmarkError(
            f"landmark provider '{name}' cannot be built ({e}); check --landmarks and "
            "--landmarks_conf"
        ) from None
