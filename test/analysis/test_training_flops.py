"""Operations counted on shapes against those of a real step, and against rules of thumb."""

import argparse
import copy
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_smop.analysis.training_flops import TrainingFlops
from espnet_smop.config import merge
from espnet_smop.projector.dispatch import mix
from espnet_smop.skeleton import use_skeletons
from espnet_smop.tasks.avsr import AVSRTask

CONF = Path(__file__).parents[2] / "egs2/lrs3/avsr_smop1/conf"
SECONDS, TEXT = 3.0, 30


def batch():
    frames = int(SECONDS * 25)
    return {
        "speech": torch.randn(1, frames * 640),
        "speech_lengths": torch.tensor([frames * 640]),
        "video": torch.randn(1, frames, 88, 88),
        "video_lengths": torch.tensor([frames]),
        "text": torch.ones(1, TEXT, dtype=torch.long),
        "text_lengths": torch.tensor([TEXT]),
    }


def counted_in_a_step(model, inputs):
    model.projector.mixture.mix = lambda *a: mix(*a, how="eager")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)[0].backward()
    # Mel filters are a matrix product here and hardly any work at published sizes.
    log_mel, speech = model.frontends["audio"].log_mel, inputs["speech"]
    with FlopCounterMode(display=False) as spectrogram:
        log_mel(speech, inputs["speech_lengths"], speech.shape[1])
    return counter.get_total_flops() - spectrogram.get_total_flops()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"projector": "mlp", "projector_conf": {"fusion": {"audio": "mmfuser", "video": "dci"}}},
        {"video_frontend_conf": {"lora": {"r": 2}}},
        {"decoder_conf": {"gradient_checkpointing": True}},
    ],
    ids=["smop", "fusion", "lora in an encoder", "layers computed again"],
)
def test_as_many_as_a_real_step_needs(model_args, changes):
    args = merge(vars(model_args()), changes)
    torch.manual_seed(0)
    model = AVSRTask.build_model(argparse.Namespace(**copy.deepcopy(args))).train()
    real = counted_in_a_step(model, batch())
    args = argparse.Namespace(**args)
    with torch.device("meta"):
        model = AVSRTask.build_model(args)
    flops = TrainingFlops(seconds=SECONDS, text=TEXT)
    # Whisper encodes two frames more, and tokens of a prompt are estimated.
    assert flops.per_second(args, model) * SECONDS == pytest.approx(real, rel=0.03)


def test_published_sizes_by_rules_of_thumb(tmp_path):
    """Two operations a parameter and token forward, and as many for the inputs' gradients."""
    args = AVSRTask.get_parser().parse_args(["--config", str(CONF / "train_avsr.yaml")])
    use_skeletons(args, tmp_path)
    with torch.device("meta"):
        model = AVSRTask.build_model(args)
    sizes = {
        name: sum(p.numel() for p in module.parameters() if p.dim() > 1)
        for name, module in {
            "llm": model.decoder.llm.base_model.layers,
            "whisper": model.frontends["audio"].encoder.layers,
            "avhubert": model.frontends["video"].encoder.encoder.layers,
        }.items()
    }
    # 10 s: a token of three frames, at 50 and 25 frames a second; words and prompt
    tokens = 167 + 84 + 39 + 9 + 4
    rule = 4 * sizes["llm"] * tokens + 4 * 128256 * 2048 * 40
    rule += 2 * sizes["whisper"] * 500 + 2 * sizes["avhubert"] * 250
    # 3-D stem, trunk of 18 layers on 22 x 22 pictures: per frame, by hand
    stem = 2 * 64 * 5 * 49 * 44 * 44
    trunk = 2 * 9 * sum(n * width**2 * side**2 for n, width, side in (
        (4, 64, 22), (3.5, 128, 11), (3.5, 256, 6), (3.5, 512, 3))
    )  # fmt: skip
    rule += 250 * (stem + trunk)
    # Two of three experts, forward and both gradients, but none for the frozen features.
    for width, count in ((3 * 512, 167), (3 * 1024, 84)):
        rule += 2 * count * 2 * (2 * width * 2048 + 3 * 2048 * 2048)
    found = TrainingFlops().per_second(args, model) * 10
    # Attention, LoRA, routers and convolutions of the positions come on top.
    assert rule < found < 1.12 * rule
