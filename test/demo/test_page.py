"""What Gradio is told; how it behaves in a browser: test_page_in_browser.py."""

import pytest

pytest.importorskip("gradio", reason="needs the extra `demo`: pip install '.[demo]'")

from fastapi.testclient import TestClient
from gradio.routes import App

from espnet_smop.demo.page import QUIET, build_page


@pytest.fixture
def page(recogniser, clips):
    return build_page(recogniser, name="tiny", examples=[clips / "a.webm"], max_megabytes=50)


def components(page, kind):
    return [c["props"] for c in page.get_config_file()["components"] if c["type"] == kind]


def recognise(page):
    [function] = [f for f in page.fns.values() if f.name == "recognise"]
    return function.fn


def test_nothing_is_told_to_others(page):
    assert not page.analytics_enabled and not page.share


def test_one_clip_at_a_time_and_not_by_the_api(page):
    [function] = [f for f in page.fns.values() if f.name == "recognise"]
    assert function.concurrency_limit == 1
    assert all(f.api_visibility != "public" for f in page.fns.values())


def test_the_slider_is_there_with_babble_alone(page, recogniser, monkeypatch):
    [slider] = components(page, "slider")
    assert slider["visible"] and slider["value"] == slider["maximum"] == QUIET
    monkeypatch.setattr(recogniser, "babble", None)
    [slider] = components(
        build_page(recogniser, name="tiny", examples=[], max_megabytes=50), "slider"
    )
    assert not slider["visible"]


def test_a_model_of_sound_records_sound(recogniser, monkeypatch):
    monkeypatch.setattr(recogniser.transcriber, "modalities", ("audio",))
    page = build_page(recogniser, name="tiny", examples=[], max_megabytes=50)
    assert len(components(page, "audio")) == 1 and components(page, "video") == []


def test_recognising(page, recogniser, clips, monkeypatch):
    levels = []
    call = type(recogniser).__call__
    monkeypatch.setattr(
        type(recogniser),
        "__call__",
        lambda self, path, snr, progress: levels.append(snr) or call(self, path, snr),
    )
    assert "smop-cards" in recognise(page)(str(clips / "a.webm"), QUIET)
    assert "smop-cards" in recognise(page)(str(clips / "a.webm"), -5)
    assert levels == [None, -5]
    assert recognise(page)(None, 0) == '<p class="smop-error" role="alert">Choose a clip first.</p>'
    assert 'role="alert">broken.mp4: damaged, or not a media file' in recognise(page)(
        str(clips / "broken.mp4"), 0
    )


@pytest.fixture
def upload(page, tmp_path, monkeypatch):
    """Return a function that uploads content under a name: the answer, and the file it made."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "clips"))
    page.GRADIO_CACHE = str(tmp_path / "clips")
    page.max_file_size = 1000
    client = TestClient(App.create_app(page))

    def upload(name, content):
        answer = client.post("/gradio_api/upload", files={"files": (name, content)})
        return answer, [p for p in tmp_path.rglob("*") if p.is_file()]

    return upload


@pytest.mark.parametrize(
    "name", ["../../a.mp4", "/etc/cron.d/a.mp4", "..\\..\\a.mp4", "a\nb.mp4", "%2e%2e%2fa.mp4"]
)
def test_a_path_as_the_name_of_an_upload(upload, tmp_path, name):
    answer, [file] = upload(name, b"x")
    assert answer.status_code == 200
    assert file.resolve().is_relative_to(tmp_path / "clips")
    assert file.name.isprintable() and not {"/", "\\"} & set(file.name)


def test_a_large_upload_is_refused_and_removed(upload):
    answer, files = upload("large.mp4", bytes(2000))
    assert answer.status_code == 413
    assert files == []
