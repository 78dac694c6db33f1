"""Draw an utterance under noise: lips, sound, experts of each token, and what each model heard.

Example, in ``egs2/mini_lrs3/avsr_smop1`` after ``./run.sh --tasks "asr vsr avsr"``::

    python ../../../docs/figures/utterance.py s54_00048
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from themes import THEMES, matplotlib_style

from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import read_video
from espnet_smop.inference import AVSRSpeech2Text
from espnet_smop.modality import FRAME_RATE, SAMPLE_RATE
from espnet_smop.results.alignment import align
from espnet_smop.train.noise import NoiseAdder

MODELS = {"sound alone": "asr_smop4", "lips alone": "vsr_smop4", "both": "avsr_smop3_dedr"}
"""What a model gets → its config in the mini recipe."""


def recognise(
    uid: str, speech: np.ndarray, video: np.ndarray, noise: dict, exp_dir: Path
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return each model's text, and modality → softmax ``(T, N)`` of the last one's routers."""
    texts = {}
    for name, system in MODELS.items():
        heard = None if name == "lips alone" else noise
        model = AVSRSpeech2Text.from_pretrained(exp_dir / f"avsr_train_{system}", noise=heard)
        data = {"speech": speech, "video": video}
        _, batch = model.collate([(uid, model.preprocess(uid, data))])
        texts[name] = model.hypotheses(batch)[0][0].text
    with torch.no_grad():
        routings = model.model.project(**batch).routings
    own = {modality: routings[modality][modality] for modality in ("audio", "video")}
    return texts, {m: routing.probs[routing.valid].numpy() for m, routing in own.items()}


def draw_lips(ax: Axes, video: np.ndarray, seconds: float, count: int = 11) -> None:
    """Draw mouth crops side by side, each at its time."""
    width = seconds / count
    for k in range(count):
        frame = min(int((k + 0.5) * width * FRAME_RATE), len(video) - 1)
        place = ((k + 0.02) * width, (k + 0.98) * width, 0, 1)
        ax.imshow(video[frame], cmap="gray", vmin=0, vmax=255, aspect="auto", extent=place)
    ax.set_ylim(0, 1)


def draw_sound(ax: Axes, noisy: np.ndarray, speech: np.ndarray, theme: dict) -> None:
    """Draw the speech before the noisy speech."""
    for wave, colour in ((noisy, theme["noise"]), (speech, theme["ink"])):
        stretches = np.array_split(wave, 900)
        times = np.linspace(0, len(wave) / SAMPLE_RATE, len(stretches))
        low, high = ([pick(s) for s in stretches] for pick in (np.min, np.max))
        ax.fill_between(times, low, high, color=colour, linewidth=0.3)
    ax.set_ylim(-np.abs(noisy).max(), np.abs(noisy).max())


def draw_experts(ax: Axes, probs: np.ndarray, seconds: float, theme: dict) -> None:
    """Draw each token as a column that its experts share by the router's probabilities."""
    width = seconds / len(probs)
    left, bottom = np.arange(len(probs)) * width, np.zeros(len(probs))
    for expert, share in enumerate(probs.T):
        ax.bar(
            left, share, 0.9 * width, bottom, align="edge", color=theme["series"][expert],
            label=f"expert {expert}",
        )  # fmt: skip
        bottom = bottom + share
    ax.set_ylim(0, 1)


def draw_texts(ax: Axes, said: str, texts: dict[str, str], theme: dict) -> None:
    """Write what was said and what each model heard, wrong words in another colour."""
    ax.set_axis_off()
    ax.set_ylim(len(texts) + 0.7, -0.6)
    font = {"family": "DejaVu Sans Mono", "size": 11.5, "va": "center"}
    for row, (name, text) in enumerate({"said": said, **texts}.items()):
        ax.text(-0.012, row, name, ha="right", va="center", transform=ax.get_yaxis_transform())
        column = 0
        for right, word in align(said.split(), text.split()):
            wrong = {"color": theme["wrong"], "weight": "bold"} if word != right else {}
            word = word or "·" * len(right)
            # A character of this font is 0.602 of its size wide.
            x = column * 0.602 * font["size"]
            ax.annotate(word, (0, row), (x, 0), textcoords="offset points", **font, **wrong)
            column += len(word) + 1


def draw(
    said: str,
    texts: dict[str, str],
    video: np.ndarray,
    speech: np.ndarray,
    noisy: np.ndarray,
    probs: dict[str, np.ndarray],
    theme: dict,
) -> Figure:
    """Return the figure; signals as in the files, ``probs`` by modality ``(T, N)``."""
    seconds = len(video) / FRAME_RATE
    figure = Figure(figsize=(8.8, 3.45))
    figure.subplots_adjust(0.115, 0.01, 0.9, 0.995, hspace=0.12)
    axes = figure.subplots(5, 1, height_ratios=(0.72, 0.6, 0.34, 0.34, 1.15))
    draw_lips(axes[0], video, seconds)
    draw_sound(axes[1], noisy, speech, theme)
    for ax, modality in zip(axes[2:], ("video", "audio"), strict=False):
        draw_experts(ax, probs[modality], seconds, theme)
    names = ("lips", "speech\nin babble", "experts\nof lips", "experts\nof sound")
    for ax, name in zip(axes, names, strict=False):
        ax.set_xlim(0, seconds)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    axes[2].legend(
        loc="upper left", bbox_to_anchor=(1, 1.25), frameon=False, handlelength=0.8,
        handletextpad=0.5, fontsize=8,
    )  # fmt: skip
    draw_texts(axes[4], said, texts, theme)
    return figure


def main(words: Sequence[str] | None = None) -> None:
    """Write ``utterance_{light,dark}.png``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uid", help="utterance of --data_dir")
    parser.add_argument("--exp_dir", type=Path, default="exp", help="experiments (default: exp)")
    parser.add_argument("--data_dir", type=Path, default="dump/raw/test", help="data directory")
    parser.add_argument("--noise", default="dump/noise/babble.wav", help="noise at 16 kHz")
    parser.add_argument("--snr", type=float, default=0.0, help="in dB (default: 0)")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent)
    args = parser.parse_args(words)
    speech, _ = soundfile.read(read_table(args.data_dir / "wav.scp")[args.uid], dtype="float32")
    video = read_video(read_table(args.data_dir / "video.scp")[args.uid])
    noise = {"file": args.noise, "snr": args.snr}
    texts, probs = recognise(args.uid, speech, video, noise, args.exp_dir)
    noisy = NoiseAdder(**noise, deterministic=True)(args.uid, speech)
    said = read_table(args.data_dir / "text")[args.uid]
    for name, theme in THEMES.items():
        with matplotlib.rc_context(matplotlib_style(theme)):
            figure = draw(said, texts, video, speech, noisy, probs, theme)
            figure.savefig(drawn := io.BytesIO(), dpi=160)
        few_colours = Image.open(drawn).quantize(256, method=Image.Quantize.FASTOCTREE)
        few_colours.save(args.output_dir / f"utterance_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
