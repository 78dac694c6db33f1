"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import os
import shutil
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", reason="needs the extra `demo`: pip install '.[demo]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs the extra `browser`: pip install '.[browser]'"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

MEGABYTE = 10**6
PATIENCE = 600_000  # ms; machines that test are busy
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

# The command, with a note of every address that it connects to or looks up.
SERVER = """
import sys

def note(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        print("CONNECTS", args[1][0], flush=True)
    elif event == "socket.getaddrinfo":
        print("CONNECTS", args[0], flush=True)

sys.addaudithook(note)
from espnet_smop.bin.demo import main
main(sys.argv[1:])
"""
LOOPBACK = {"127.0.0.1", "localhost", "None"}  # None: whatever a server listens at


class Server:
    """The command in a process of its own, whose temporary files are in ``temporary``."""

    def __init__(self, words, temporary):
        temporary.mkdir()
        self.temporary, self.log = temporary, temporary.parent / "log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, *words], stdout=log, stderr=log,
                env={**os.environ, "TMPDIR": str(temporary), "http_proxy": ""},
            )  # fmt: skip
        self.url = self._wait_for_url()

    def _wait_for_url(self):
        end = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < end and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if line.startswith("The page is at "):
                    return line.split()[4]
            time.sleep(0.1)
        self.process.kill()
        pytest.fail(f"the page did not start: {self.log.read_text()}")

    def connections(self):
        lines = self.log.read_text().splitlines()
        return {line.split()[1] for line in lines if line.startswith("CONNECTS")}

    def megabytes(self):
        files = [p for p in self.temporary.rglob("*") if p.is_file()]
        return sum(p.stat().st_size for p in files) / MEGABYTE

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(experiment, clips, tmp_path_factory):
    examples = tmp_path_factory.mktemp("examples")
    for name in ("a.webm", "a.npy", "b.webm", "b.npy"):
        shutil.copy(clips / name, examples)
    words = [str(experiment), "--beam_size", "1", "--example", str(examples)]
    words += ["--babble", str(clips / "babble.wav")]
    started = Server(words, tmp_path_factory.mktemp("server") / "temporary")
    yield started
    if started.process.poll() is None:
        started.process.kill()


class Visitor:
    """One window of the browser."""

    def __init__(self, window):
        self.window = window
        self.requested = set()
        window.set_default_timeout(PATIENCE)
        window.on("request", lambda request: self.requested.add(urlsplit(request.url).hostname))

    def open(self, url):
        self.window.goto(url)
        self.window.wait_for_selector("#recognise")
        return self

    def give(self, path):
        self.window.set_input_files("#clip input[type=file]", path)
        self.window.wait_for_selector("#clip video")

    def recognise(self):
        self.window.click("#recognise")
        self.window.wait_for_selector("#result .smop-cards")

    def cards(self):
        """Return the cards' titles and texts."""
        found = [self.window.locator(f".smop-card {tag}").all_inner_texts() for tag in ("h3", "p")]
        return dict(zip(*found, strict=True))


@pytest.fixture(scope="module")
def browser():
    """Start a browser whose camera shows a test picture and whose microphone beeps."""
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream",
                  "--use-fake-ui-for-media-stream"],
        )  # fmt: skip
        yield started
        started.close()


@pytest.fixture
def visitor(browser, server):
    """Return a function that opens the page in a window of its own."""
    contexts = []

    def open_page(size=WIDE):
        contexts.append(browser.new_context(viewport=size, permissions=["camera", "microphone"]))
        return Visitor(contexts[-1].new_page()).open(server.url)

    yield open_page
    for context in contexts:
        context.close()


def expected(recogniser, clip):
    """Return what `Visitor.cards` should show; a browser shows several spaces as one."""
    titles = ("Sound and lips", "Sound alone", "Lips alone")
    [piece] = recogniser(clip, None).pieces
    return {
        title: f"0.0 – {s.end:.1f} s\n{' '.join(s.text.split()) or '(no words)'}"
        for title, s in zip(titles, piece.transcripts.values(), strict=True)
    }


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "390"])
def test_upload_recognise_and_babble(server, visitor, recogniser, clips, size):
    v = visitor(size)
    v.give(clips / "a.webm")
    v.recognise()
    clean = v.cards()
    assert clean == expected(recogniser, clips / "a.webm")
    v.window.wait_for_function("() => document.querySelector('#result video').readyState >= 2")
    playback = v.window.locator("#result video")
    assert playback.evaluate("v => [v.videoWidth, v.error]") == [192, None]
    quiet = playback.get_attribute("src")
    assert v.window.evaluate("document.documentElement.scrollWidth") <= size["width"]

    v.window.locator("#snr input[type=range]").focus()
    for _ in range(25):
        v.window.keyboard.press("ArrowLeft")
    v.window.click("#recognise")
    v.window.wait_for_function(
        "quiet => { const v = document.querySelector('#result video');"
        " return v && v.getAttribute('src') !== quiet }",
        arg=quiet,
    )
    assert v.cards()["Lips alone"] == clean["Lips alone"]
    assert v.requested - {None} <= LOOPBACK
    assert server.connections() <= LOOPBACK


def test_an_example(visitor, recogniser, clips):
    v = visitor()
    v.window.get_by_text("/b").click()
    v.window.wait_for_selector("#clip video")
    v.recognise()
    assert v.cards() == expected(recogniser, clips / "b.webm")


def test_a_recording(visitor):
    v = visitor()
    v.window.locator("#clip [data-testid=source-select] button").nth(1).click()
    v.window.get_by_text("Click to Access Webcam").click()
    v.window.locator("#clip [title='start recording']").click()
    v.window.locator("#clip [title='stop recording']").wait_for()
    time.sleep(3)
    v.window.locator("#clip [title='stop recording']").click()
    v.window.wait_for_selector("#clip video[src*='/file=']")
    v.recognise()
    assert v.cards()["Sound alone"].startswith("0.0 – ")
    # The test picture is no face.
    assert v.cards()["Lips alone"] == "not in this clip"
    assert "recognising only the audio" in v.window.inner_text(".smop-note")


def test_a_bad_file(visitor, clips):
    v = visitor()
    v.give(clips / "broken.mp4")
    v.window.click("#recognise")
    alert = v.window.wait_for_selector("#result [role=alert]").inner_text()
    assert alert.startswith("broken.mp4: damaged, or not a media file")


def test_a_large_file(server, visitor, recogniser, clips, tmp_path):
    import httpx

    large = tmp_path / "large.mp4"
    with open(large, "wb") as file:
        file.truncate(200 * MEGABYTE)
    before = server.megabytes()
    v = visitor()
    v.window.set_input_files("#clip input[type=file]", large)
    v.window.get_by_text("exceed the maximum allowed size").first.wait_for()
    # Nor does the server take it from whoever does not ask the page.
    with open(large, "rb") as file:
        answer = httpx.post(f"{server.url}gradio_api/upload", files={"files": file}, timeout=300)
    assert answer.status_code == 413
    assert server.megabytes() <= before + 1
    v = visitor()
    v.give(clips / "a.webm")
    v.recognise()
    assert v.cards() == expected(recogniser, clips / "a.webm")


def test_two_visitors_at_once(visitor, recogniser, clips):
    names = ["a.webm", "b.webm"]
    visitors = [visitor() for _ in names]
    for v, name in zip(visitors, names, strict=True):
        v.give(clips / name)
    for v in visitors:
        v.window.click("#recognise")
    for v, name in zip(visitors, names, strict=True):
        v.window.wait_for_selector("#result .smop-cards")
        assert v.cards() == expected(recogniser, clips / name)


def test_clips_are_gone_when_it_ends(server):
    assert server.megabytes() > 0
    assert server.stop() == 0
    assert list(server.temporary.iterdir()) == []
