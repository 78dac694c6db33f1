"""Tiny base models with random weights, saved and loaded like published ones, and a tiny corpus."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    WhisperConfig,
    WhisperModel,
)

from espnet_smop.corpus.shapes import make_shapes
from espnet_smop.fileio.video import write_video
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel
from espnet_smop.tasks.avsr import AVSRTask


def pytest_collection_modifyitems(items):
    """Count what takes minutes as slow, so that `-m "not slow"` leaves it out."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


_SENTENCES = [
    "Transcribe speech and video to text.",
    "Transcribe speech to text.",
    "Transcribe video to text.",
    "place blue at f two now",
    "lay green by a nine soon",
    "set red with q zero again",
]

_SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,  # peaked distributions, so that hypotheses differ clearly
}

_EOS_SCALE = 2.5

_ARCHITECTURES = {
    "llama3": (
        LlamaForCausalLM,
        LlamaConfig,
        {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "smollm": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 512}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
}


def _tokenizer(with_bos):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<eos>", "<bos>"] if with_bos else ["<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=96,
        special_tokens=specials,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyzĠ.T"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    names = {"eos_token": "<eos>"} | ({"bos_token": "<bos>"} if with_bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="session")
def local_tokenizer():
    """Return a function that makes a byte-level BPE tokenizer of at most 96 tokens."""
    return _tokenizer


@pytest.fixture(scope="session")
def make_llm(tmp_path_factory):
    """Return a function from an architecture's name to a directory with a tiny LLM of it.

    The ``generation_config.json`` asks for sampling and penalties, which must not be followed.
    """
    made = {}

    def make(architecture="llama3"):
        if architecture not in made:
            model_class, config_class, special = _ARCHITECTURES[architecture]
            tokenizer = _tokenizer(with_bos=not architecture.startswith("qwen"))
            torch.manual_seed(len(architecture))
            config = config_class(
                **_SIZE,
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **special,
            )
            llm = model_class(config)
            with torch.no_grad():  # texts that end early, late and not at all
                llm.get_output_embeddings().weight[tokenizer.eos_token_id] *= _EOS_SCALE
            llm.generation_config.update(
                do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.3
            )
            directory = tmp_path_factory.mktemp(architecture)
            llm.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            made[architecture] = str(directory)
        return made[architecture]

    return make


def _exchange_weights(directory):
    """Give an LLM of the same shapes other values."""
    llm = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        for weight in llm.parameters():
            weight.add_(0.1)
    llm.save_pretrained(directory)
    return "decoder.llm"


def _exchange_tokenizer(directory):
    """Exchange two letters' ids in a tokenizer."""
    path = Path(directory, "tokenizer.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(content), encoding="utf-8")
    return "decoder.tokenizer"


@pytest.fixture(scope="session")
def exchange():
    """Return functions that exchange a part of a saved LLM and return its name in configs."""
    return {"LLM": _exchange_weights, "tokenizer": _exchange_tokenizer}


@pytest.fixture
def media():
    """Return a function that draws audio and video tokens for utterances of unequal length."""

    def draw(lengths, embed_size, modalities=("audio", "video"), seed=0):
        generator = torch.Generator().manual_seed(seed)
        tokens, token_lengths = {}, {}
        for offset, modality in enumerate(modalities):
            n = torch.tensor(lengths) + offset
            shape = (len(lengths), int(n.max()), embed_size)
            tokens[modality] = torch.randn(shape, generator=generator)
            token_lengths[modality] = n
        return tokens, token_lengths

    return draw


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory):
    """Return a directory with a two-layer Whisper."""
    torch.manual_seed(1)
    directory = tmp_path_factory.mktemp("whisper")
    WhisperModel(
        WhisperConfig(
            d_model=24,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            vocab_size=20,
            max_source_positions=200,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    ).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="session")
def tiny_avhubert(tmp_path_factory):
    """Return a directory with a two-layer AV-HuBERT."""
    torch.manual_seed(2)
    directory = tmp_path_factory.mktemp("avhubert")
    AVHuBERTModel(
        AVHuBERTConfig(
            encoder_layers=2,
            encoder_embed_dim=16,
            encoder_ffn_embed_dim=32,
            encoder_attention_heads=2,
            conv_pos=8,
            conv_pos_groups=2,
            resnet_stem_channels=4,
            resnet_stem_stride=4,
            resnet_channels=[4, 4, 8, 8],
            resnet_blocks=[1, 1, 1, 1],
        )
    ).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="session")
def model_args(make_llm, tiny_whisper, tiny_avhubert):
    """Return a function that makes the arguments of a tiny model; keywords override them."""

    def make(**changes):
        args = {
            "audio_frontend": "whisper",
            "audio_frontend_conf": {"model": tiny_whisper},
            "video_frontend": "avhubert",
            "video_frontend_conf": {"model": tiny_avhubert},
            "model_conf": {},
            "inference_conf": {},
            "projector": "smop",
            "projector_conf": {"routing": "dedr", "num_experts": 3, "hidden_size": 16},
            "decoder": "llm",
            "decoder_conf": {"model": make_llm("smollm"), "lora": {"r": 2, "alpha": 2}},
            "preprocessor": "avsr",
            "preprocessor_conf": {},
            "use_preprocessor": True,
            "base_fingerprints": {},
        }
        return argparse.Namespace(**{**args, **changes})

    return make


@pytest.fixture(scope="session")
def experiment(model_args, tmp_path_factory):
    """Return the directory of a tiny model, untrained, that decodes at most six tokens."""
    directory = tmp_path_factory.mktemp("exp")
    args = model_args(inference_conf={"beam_size": 2, "max_new_tokens": 6})
    torch.manual_seed(0)
    model = AVSRTask.build_model(args)
    (directory / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), directory / "valid.acc.ave.pth")
    return directory


@pytest.fixture(scope="session")
def dump_dir(tmp_path_factory):
    """Return a formatted data directory of 12 utterances of unequal length."""
    rng = np.random.default_rng(0)
    directory = tmp_path_factory.mktemp("dump")
    lists = {
        "wav.scp": [],
        "video.scp": [],
        "text": [],
        "utt2num_samples": [],
        "utt2num_frames": [],
    }
    for i in range(12):
        frames = int(rng.integers(8, 30))
        uid = f"spk{i % 3}_{i:02d}"
        wav, video = directory / f"{uid}.flac", directory / f"{uid}.mkv"
        soundfile.write(wav, rng.normal(size=frames * 640) * 0.1, 16000)
        write_video(video, rng.integers(0, 255, (frames, 96, 96), dtype=np.uint8))
        for name, value in (
            ("wav.scp", wav),
            ("video.scp", video),
            ("text", _SENTENCES[i % len(_SENTENCES)]),
            ("utt2num_samples", frames * 640),
            ("utt2num_frames", frames),
        ):
            lists[name].append(f"{uid} {value}\n")
    for name, lines in lists.items():
        (directory / name).write_text("".join(sorted(lines)))
    return directory


@pytest.fixture
def train_command(model_args, dump_dir, tmp_path):
    """Return a function that makes the arguments of a short training of a tiny model.

    Keywords override the config; ``feats`` names, per part and data file of ``dump_dir``, what is
    read instead of it.
    """
    make_shapes(dump_dir, tmp_path / "stats")

    def make(output_dir, *, feats=None, **changes):
        args = vars(model_args())
        del args["base_fingerprints"]
        settings = {
            "batch_type": "numel",
            "batch_bins": 100,
            "num_workers": 0,
            "optim": "adamw",
            "optim_conf": {"lr": 1.0e-3},
            "best_model_criterion": [["valid", "acc", "max"]],
            "num_att_plot": 0,
            "use_matplotlib": False,
            "use_tensorboard": False,
        }
        output_dir = tmp_path / output_dir
        config = output_dir.with_suffix(".yaml")
        config.write_text(yaml.safe_dump({**args, **settings, **changes}))
        words = ["--config", config, "--output_dir", output_dir]
        for part in ("train", "valid"):
            for data in ("wav.scp,speech,sound", "video.scp,video,video", "text,text,text"):
                path = (feats or {}).get((part, data), f"{dump_dir}/{data}")
                words += [f"--{part}_data_path_and_name_and_type", path]
            words += [f"--{part}_shape_file", tmp_path / "stats" / "duration_shape"]
        return [str(word) for word in words]

    return make
