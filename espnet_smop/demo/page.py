"""The demo page: Gradio's components, and what they call."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

# Before the import: Gradio would ask its makers' server for its latest version.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from markupsafe import escape

from espnet_smop.demo.recognition import ClipError, ClipRecogniser
from espnet_smop.demo.result import as_html

_FONTS = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
QUIET = 20
"""End of the babble slider in dB, where no babble is added."""
_LOUDEST = -15
WAITING = 16
"""Queue length; clips are recognised one after the other."""
_SWEEP = (300, 3000)
"""Every five minutes, remove clips uploaded more than fifty minutes ago."""

_ABOUT = """# Listen and read lips
A clip of one person speaking, up to {seconds:g} s and {megabytes:g} MB: **{model}** transcribes
what it {does}. The clip stays on the machine that serves this page, for an hour at most."""
_EMPTY = '<p class="smop-none">Transcripts appear here.</p>'
_DOES = {
    ("audio", "video"): "hears and reads from the lips",
    ("audio",): "hears",
    ("video",): "reads from the lips",
}


def build_page(
    recogniser: ClipRecogniser, *, name: str, examples: Sequence[Path], max_megabytes: float
) -> gr.Blocks:
    """Build the page.

    Args:
        recogniser: recognises its clips.
        name: the model's.
        examples: clips to offer.
        max_megabytes: size limit of clips, for the text.
    """

    def recognise(path: str | None, snr: float, progress=gr.Progress()) -> str:  # noqa: B008
        if path is None:
            return _error("Choose a clip first.")
        level = None if snr >= QUIET else snr
        try:
            found = recogniser(path, level, lambda what, share: progress(share, desc=what))
        except ClipError as e:
            logging.info("%s", e)
            return _error(str(e))
        return as_html(recogniser, found)

    inputs = recogniser.transcriber.modalities
    about = _ABOUT.format(
        seconds=recogniser.max_seconds, megabytes=max_megabytes, model=name, does=_DOES[inputs]
    )
    with gr.Blocks(analytics_enabled=False, title="espnet_smop", delete_cache=_SWEEP) as page:
        gr.Markdown(about)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                clip = _clip_input("video" in inputs)
                snr = gr.Slider(
                    _LOUDEST, QUIET, value=QUIET, step=1, elem_id="snr",
                    label="Babble: signal-to-noise ratio in dB",
                    info="Left: loud. Right end: none.", visible=recogniser.babble is not None,
                )  # fmt: skip
                button = gr.Button("Recognise", variant="primary", elem_id="recognise")
                if examples:
                    gr.Examples(
                        [[str(path)] for path in examples], clip, label="Examples",
                        example_labels=[f"{p.parent.name}/{p.stem}" for p in examples],
                    )  # fmt: skip
            with gr.Column(scale=3, min_width=320):
                result = gr.HTML(_EMPTY, elem_id="result")
        button.click(
            recognise, [clip, snr], result, concurrency_limit=1, api_visibility="private"
        )  # fmt: skip
        clip.change(lambda: _EMPTY, None, result, queue=False, api_visibility="private")
    return page.queue(max_size=WAITING)


def serve(page: gr.Blocks, *, host: str, port: int | None, max_megabytes: float) -> None:
    """Serve the page until the process is interrupted.

    Args:
        page: from `build_page`.
        host: address to listen on.
        port: None is the first free one from 7860.
        max_megabytes: size limit of uploads.
    """
    _, address, _ = page.launch(
        server_name=host, server_port=port, max_file_size=int(max_megabytes * 1e6), share=False,
        ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, footer_links=[],
        run_history=False,
        css_paths=Path(__file__).with_name("page.css"),
        # The visitor's own fonts: others would be fetched, or lack a weight.
        theme=gr.themes.Default(font=_FONTS, font_mono=_FONTS),
        quiet=True, prevent_thread_lock=True,
    )  # fmt: skip
    print(f"The page is at {address} (Ctrl-C to stop)", flush=True)
    page.block_thread()


def _clip_input(video: bool) -> gr.Video | gr.Audio:
    if video:
        return gr.Video(
            sources=["upload", "webcam"], include_audio=True, label="Clip", elem_id="clip"
        )
    return gr.Audio(sources=["upload", "microphone"], type="filepath", label="Clip", elem_id="clip")


def _error(message: str) -> str:
    return f'<p class="smop-error" role="alert">{escape(message)}</p>'
