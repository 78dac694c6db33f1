"""The command's options and what it tells when it cannot begin."""

import sys

import pytest

import espnet_smop.demo
from espnet_smop.bin import demo
from espnet_smop.command import run


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """Give back what the command sets for its process."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_seconds", "0"], "--max_seconds 0.0: expected a number above 0"),
        (["--max_megabytes", "nan"], "--max_megabytes nan: expected a number above 0"),
        (["--babble", "no.wav"], "--babble no.wav: there is no such file"),
        (["--example", "no"], "--example no: there is no such folder"),
    ],
)
def test_wrong_options(words, message):
    with pytest.raises(SystemExit) as stopped:
        run(demo.main, ["MODEL", *words])
    assert stopped.value.code.startswith(f"demo: {message}")


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "espnet_smop.demo.page", raising=False)
    monkeypatch.delattr(espnet_smop.demo, "page", raising=False)
    with pytest.raises(SystemExit) as stopped:
        run(demo.main, ["MODEL"])
    assert stopped.value.code == (
        "demo: the page needs gradio, which is not installed: in the clone, pip install '.[demo]'"
    )


def test_the_page_gets_what_the_options_say(experiment, tmp_path, monkeypatch, caplog):
    pytest.importorskip("gradio", reason="needs the extra `demo`: pip install '.[demo]'")
    from espnet_smop.demo import page

    (tmp_path / "a.mp4").write_bytes(b"clip")
    (tmp_path / "babble.wav").touch()
    made = {}
    monkeypatch.setattr(page, "build_page", lambda recogniser, **o: made.update(o, r=recogniser))
    monkeypatch.setattr(page, "serve", lambda page, **options: made.update(options))
    monkeypatch.setitem(sys.modules, "dlib", None)
    words = ["--example", str(tmp_path), "--babble", str(tmp_path / "babble.wav")]
    demo.main([str(experiment), *words, "--max_seconds", "7", "--beam_size", "1"])
    recogniser = made.pop("r")
    assert (recogniser.max_seconds, recogniser.babble) == (7, tmp_path / "babble.wav")
    assert recogniser.transcriber.speech2text.generation["beam_size"] == 1
    assert made == {
        "name": experiment.name, "examples": [tmp_path / "a.mp4"], "max_megabytes": 50.0,
        "host": "127.0.0.1", "port": None,
    }  # fmt: skip
    assert "only the sound of visitors' clips can be recognised" in caplog.text
