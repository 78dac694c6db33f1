"""The page's recognition agrees with `transcribe`, and refuses what it should."""

import io
import shutil
import tempfile
import zipfile

import av
import numpy as np
import pytest

from espnet_smop.corpus.media import duration
from espnet_smop.demo.recognition import ClipError
from espnet_smop.inference import Transcriber

BOTH, SOUND, LIPS = ("audio", "video"), ("audio",), ("video",)


@pytest.fixture
def visitors(tmp_path, clips):
    """Return a function that copies a clip, without its landmarks, as an upload does."""

    def upload(name):
        return shutil.copy(clips / name, tmp_path / f"my {name}")

    return upload


def test_each_input_gives_what_transcribe_gives(recogniser, clips, visitors):
    found = recogniser(visitors("a.webm"), None)
    [piece] = found.pieces
    assert list(piece.transcripts) == recogniser.choices == [BOTH, SOUND, LIPS]
    for inputs, segment in piece.transcripts.items():
        transcriber = Transcriber(recogniser.transcriber.speech2text, modalities=inputs)
        assert [segment] == list(transcriber(clips / "a.webm", warn=pytest.fail)), inputs
    assert len({s.text for s in piece.transcripts.values()}) > 1
    assert found.warnings == []


def test_babble_has_the_ratio_asked_for(recogniser, visitors):
    path = visitors("a.webm")
    [clean] = recogniser(path, None).pieces
    [noisy] = recogniser(path, -5).pieces
    noise = noisy.piece.speech - clean.piece.speech
    ratio = 10 * np.log10(np.square(clean.piece.speech).sum() / np.square(noise).sum())
    assert ratio == pytest.approx(-5, abs=0.01)
    np.testing.assert_array_equal(noisy.piece.video, clean.piece.video)
    assert noisy.transcripts[LIPS] == clean.transcripts[LIPS]
    [again] = recogniser(path, -5).pieces
    np.testing.assert_array_equal(again.piece.speech, noisy.piece.speech)


def test_routes_cover_the_clip(recogniser, visitors):
    [piece] = recogniser(visitors("b.webm"), None).pieces
    assert [(r.router, r.modality) for r in piece.routes] == [
        ("audio", "audio"), ("video", "video"),
    ]  # fmt: skip
    for route in piece.routes:
        assert len(route.choices) * route.token_seconds == pytest.approx(1.4, abs=0.1)
        np.testing.assert_array_equal(route.choices[:, 0], route.probs.argmax(1))


def test_without_landmarks_or_sound_the_rest_is_used(recogniser, visitors, clips, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)  # not installed
    monkeypatch.setattr(recogniser, "landmarks", {})
    found = recogniser(visitors("a.webm"), None)
    assert list(found.pieces[0].transcripts) == [SOUND]
    assert len(found.warnings) == 1 and "recognising only the audio" in found.warnings[0]


def test_a_model_of_one_input(make_recogniser, model_args, visitors, tmp_path):
    import torch
    import yaml

    from espnet_smop.tasks.avsr import AVSRTask

    args = model_args(audio_frontend=None, inference_conf={"max_new_tokens": 3})
    torch.manual_seed(0)
    torch.save(AVSRTask.build_model(args).state_dict(), tmp_path / "valid.acc.ave.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    recogniser = make_recogniser(tmp_path)
    assert recogniser.choices == [LIPS] and recogniser.trained_alone
    assert recogniser.babble is None
    [piece] = recogniser(visitors("a.webm"), -5).pieces
    assert piece.piece.speech is None and list(piece.transcripts) == [LIPS]


def test_whether_training_had_single_inputs(recogniser, monkeypatch):
    assert not recogniser.trained_alone
    args = recogniser.transcriber.speech2text.train_args
    monkeypatch.setitem(args.model_conf, "modality_dropout", {"audio": 0.25})
    assert recogniser.trained_alone


def live(speech):
    """Return a WebM file as browsers record it, without its length."""

    class Unseekable(io.BytesIO):
        def seekable(self):
            return False

    file = Unseekable()
    with av.open(file, "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libopus", rate=48000, layout="mono")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48000, frame_size=960)
        frame = av.AudioFrame.from_ndarray(speech[None], format="flt", layout="mono")
        frame.sample_rate = 16000
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            for packet in stream.encode(part):
                container.mux(packet)
    return file.getvalue()


def test_length_is_limited_whatever_the_header_says(recogniser, visitors, tmp_path):
    with pytest.raises(ClipError, match=r"^my long\.wav: is 40 s long, more than the 30 s that"):
        recogniser(visitors("long.wav"), None)
    recorded = tmp_path / "recorded.webm"
    recorded.write_bytes(live(np.zeros(16000 * 31, np.float32)))
    assert duration(recorded) == 0
    with pytest.raises(ClipError, match="is 31 s long"):
        recogniser(recorded, None)


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    "name", ["clip.webm", "..mp4", "-i.mp4", "a b;$(touch x).mp4", "%s%n.wav", "concat:a|b.ts"]
)
@pytest.mark.parametrize(
    "content",
    [
        b"no video",
        b"",
        b"\x1aE\xdf\xa3" + bytes(200),
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\n",
        zipped("a.mp4", "../../a.mp4"),
        "Ein Text, kein Film: äöü\n".encode() * 1000,
    ],
    ids=["word", "empty", "header", "HLS", "HLS of a host", "concat", "SDP", "zip", "text"],
)
def test_broken_files(recogniser, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ClipError) as error:
        recogniser(tmp_path / name, None)
    # The visitor learns nothing of this machine.
    assert str(error.value).startswith(f"{name}: ") and tempfile.gettempdir() not in str(error)
    assert "\n" not in str(error.value)


def test_nothing_is_left_behind(recogniser, visitors, tmp_path, monkeypatch):
    own = tmp_path / "temporary"
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    recogniser(visitors("a.webm"), 0)
    with pytest.raises(ClipError):
        recogniser(visitors("broken.mp4"), 0)
    assert list(own.iterdir()) == []
