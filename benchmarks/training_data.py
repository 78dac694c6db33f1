"""Random base models and clips with LRS3's lengths, for the training benchmarks."""

import argparse
import math
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_smop.fileio.video import write_video
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel
from espnet_smop.skeleton import published_config, skeleton
from espnet_smop.tasks.avsr import AVSRTask

RATES = {"audio": 3, "video": 3}
PROMPT = "To text:"  # as many bytes as the paper's prompt has tokens of Llama
TINY = {
    "whisper": WhisperConfig(
        d_model=128,
        encoder_layers=4,
        encoder_attention_heads=4,
        encoder_ffn_dim=512,
    ),
    "avhubert": AVHuBERTConfig(
        encoder_layers=4,
        encoder_embed_dim=128,
        encoder_ffn_embed_dim=512,
        encoder_attention_heads=4,
        conv_pos=32,
        conv_pos_groups=16,
        resnet_stem_channels=8,
        resnet_stem_stride=4,
        resnet_channels=[8, 16, 24, 32],
        resnet_blocks=[1, 1, 1, 1],
    ),
    "llm": LlamaConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=8000,
        tie_word_embeddings=True,
    ),
}


def random_bases(args: argparse.Namespace, directory: Path) -> dict[str, str]:
    """Write base models with random weights; return their directories."""
    names = {"whisper": args.whisper, "avhubert": "avhubert_large", "llm": args.llm}
    configs = TINY if args.tiny else {k: published_config(n) for k, n in names.items()}
    classes = {"whisper": WhisperEncoder, "avhubert": AVHuBERTModel, "llm": LlamaForCausalLM}
    torch.manual_seed(0)
    out = {}
    for kind, class_ in classes.items():
        out[kind] = str(skeleton(names[kind], directory))
        with torch.device(args.device):
            model = class_(configs[kind])
        model.to(torch.bfloat16 if args.device == "cuda" else torch.float32)
        model.save_pretrained(out[kind])
        del model
    return out


def lrs3_like(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw durations in video frames and numbers of text tokens.

    Four of five utterances are like LRS3's pretrain part, the others like trainval, cut at 24 s;
    3 words a second of 1.3 tokens.
    """
    rng = np.random.default_rng(0)
    pretrain = rng.random(count) < 0.8
    seconds = np.exp(
        np.where(
            pretrain,
            rng.normal(math.log(9.0), 0.75, count),
            rng.normal(math.log(2.8), 0.55, count),
        )
    ).clip(0.6, 24.0)
    words = np.maximum(1, rng.normal(3.0, 0.6, count) * seconds)
    return (seconds * 25).astype(int), (words * 1.3).astype(int)


def padding(batches: list[np.ndarray], values: np.ndarray) -> float:
    """Return the share of padding."""
    return 1 - sum(values[b].sum() for b in batches) / sum(
        len(b) * values[b].max() for b in batches
    )


def write_corpus(directory: Path, frames: dict[str, int], text: dict[str, int]) -> None:
    """Write a formatted data directory of smooth moving images and noise."""
    rng = np.random.default_rng(1)
    longest = max(frames.values())
    image = rng.random((12, 12)).repeat(16, 0).repeat(16, 1) * 200
    for axis in (0, 1):
        image = sum(np.roll(image, s, axis) for s in range(-8, 9)) / 17
    pictures = np.stack(
        [
            np.roll(image, (3 * t, t), (0, 1))[:96, :96] + rng.normal(0, 2, (96, 96))
            for t in range(50)
        ]
    ).clip(0, 255)
    pictures = np.tile(pictures.astype(np.uint8), (longest // 50 + 1, 1, 1))
    sound = (rng.normal(size=longest * 640) * 0.1).astype(np.float32)
    files = ("wav.scp", "video.scp", "text", "utt2num_samples", "utt2num_frames")
    lines = {name: [] for name in files}
    directory.mkdir()
    for key, n in sorted(frames.items()):
        wav, video = directory / f"{key}.flac", directory / f"{key}.mkv"
        soundfile.write(wav, sound[: n * 640], 16000)
        write_video(video, pictures[:n])
        letters = "".join(rng.choice(list("abcdefgh"), text[key]))
        for name, value in zip(files, (wav, video, letters, n * 640, n), strict=True):
            lines[name].append(f"{key} {value}\n")
    for name, content in lines.items():
        (directory / name).write_text("".join(content))


def task_arguments(args: argparse.Namespace, bases: dict[str, str], directory: Path):
    """Return the arguments that the recipe would give a training."""
    config = {
        "audio_frontend_conf": {"model": bases["whisper"]},
        "video_frontend_conf": {"model": bases["avhubert"]},
        "projector_conf": {
            "routing": "dedr",
            "num_experts": 3,
            "hidden_size": 128 if args.tiny else 2048,
            "downsample": {"mode": "stack", **RATES},
        },
        "decoder_conf": {"model": bases["llm"], "prompt": PROMPT},
        "num_workers": args.num_workers,
        "ngpu": int(args.device == "cuda"),
    }
    (directory / "train.yaml").write_text(yaml.safe_dump(config))
    words = ["--config", str(directory / "train.yaml")]
    for data in ("wav.scp,speech,sound", "video.scp,video,video", "text,text,text"):
        words += ["--train_data_path_and_name_and_type", f"{directory}/dump/{data}"]
    words += ["--train_shape_file", f"{directory}/stats/duration_shape"]
    return AVSRTask.get_parser().parse_args([*words, "--output_dir", str(directory / "exp")])


def random_batch(utterances: int, seconds: float) -> dict[str, torch.Tensor]:
    """Return equally long utterances, with 4 tokens of text a second."""
    frames, text = int(seconds * 25), int(seconds * 4)
    return {
        "speech": torch.randn(utterances, frames * 640),
        "speech_lengths": torch.full((utterances,), frames * 640),
        "video": torch.randn(utterances, frames, 88, 88),
        "video_lengths": torch.full((utterances,), frames),
        "text": torch.randint(2, 200, (utterances, text)),
        "text_lengths": torch.full((utterances,), text),
    }
