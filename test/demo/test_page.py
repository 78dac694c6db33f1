"""What Gradio is told; how it behaves in a browser: test_page_in_browser.py."""

import pytest

pytest.importorskip("gradio", reason="needs the extra `demo`: pip install '.[demo]'")

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
    assert 'role="alert">broken.mp4: not a complete' in recognise(page)(
        str(clips / "broken.mp4"), 0
    )
