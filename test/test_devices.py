"""Nothing is computed on the wrong device, which a machine without a GPU cannot see otherwise."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from espnet_smop.checkpoint.llama_smop.settings import FRONTENDS
from espnet_smop.projector.dispatch import mix
from espnet_smop.tasks.avsr import AVSRTask

sys.path.insert(0, str(Path(__file__).parent))

import gpu_stand_in
from gpu_stand_in import OnGPU, gpu

SYSTEMS = {
    "dedr": {},
    "jejr": {"projector_conf": {"routing": "jejr", "num_experts": 3, "hidden_size": 16}},
    "mmfuser": {
        "projector": "mlp",
        "projector_conf": {"fusion": {"audio": "mmfuser", "video": "mmfuser"}},
    },
    "dci": {"projector": "mlp", "projector_conf": {"fusion": {"audio": "dci", "video": "dci"}}},
    "warm_start": {"model_conf": {"ctc_warmup_steps": 3}},
    "reference": {
        "audio_frontend": f"{FRONTENDS}:UnmaskedWhisperFrontend",
        "video_frontend": f"{FRONTENDS}:UnmaskedAVHuBERTFrontend",
    },
    "checkpointing": {"decoder_conf": {"gradient_checkpointing": True}},
}
"""What differs from a default model."""


@pytest.fixture
def batch():
    """Return three utterances of unequal length."""
    torch.manual_seed(0)
    frames = torch.tensor([30, 21, 12])
    return {
        "speech": torch.randn(3, 30 * 640),
        "speech_lengths": frames * 640,
        "video": torch.randn(3, 30, 88, 88),
        "video_lengths": frames,
        "text": torch.randint(2, 50, (3, 6)),
        "text_lengths": torch.tensor([6, 4, 2]),
    }


@pytest.fixture
def build(model_args, make_llm, tiny_whisper, tiny_avhubert):
    """Return a function that builds one of ``SYSTEMS``, the same in each call."""

    def make(system, dtype="float32"):
        frozen = {
            "audio_frontend_conf": {"model": tiny_whisper},
            "video_frontend_conf": {"model": tiny_avhubert},
            "decoder_conf": {"model": make_llm("smollm"), "lora": {"r": 2, "alpha": 2}},
        }
        changes = {**SYSTEMS[system], **frozen}
        for name in frozen:
            changes[name] = {**frozen[name], **SYSTEMS[system].get(name, {}), "dtype": dtype}
        torch.manual_seed(1)
        return AVSRTask.build_model(model_args(**changes))

    return make


def there(batch):
    """Return a batch on the stand-in."""
    return {name: OnGPU(value) for name, value in batch.items()}


def test_stand_in():
    x, y = OnGPU(torch.arange(3.0)), torch.ones(3)
    with gpu():
        with pytest.raises(RuntimeError, match=r"mul.*tensors of cuda:0 and of the cpu"):
            x * y
        with pytest.raises(RuntimeError, match=r"cat.*tensors of cuda:0 and of the cpu"):
            torch.cat([x, torch.arange(3)])
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        assert not gpu_stand_in.waits
        z = x * y.to(x.device) + torch.arange(3, device=x.device)
        assert (z.device.type, z.tolist()) == ("cuda", [0, 2, 4])
        assert z[z > 1].sum().item() == 6
        assert type(z.cpu()) is torch.Tensor
    assert sum(gpu_stand_in.waits.values()) == 4


@pytest.mark.parametrize("system", SYSTEMS)
def test_training_loss_is_that_of_the_cpu(build, batch, system):
    torch.manual_seed(2)
    want, *_ = build(system)(**batch)
    model = gpu_stand_in.move(build(system))
    torch.manual_seed(2)
    with gpu():
        loss, *_ = model(**there(batch))
    assert loss.requires_grad
    torch.testing.assert_close(loss.there, want.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("system", ["dedr", "dci"])
@pytest.mark.parametrize("options", [{"beam_size": 3}, {"sample": True, "seed": 1}], ids=str)
def test_decoding_is_that_of_the_cpu(build, batch, system, options):
    def decode(model, batch):
        media = model.project(*(batch[name] for name in list(batch)[:4]))
        beams = model.decoder.generate(media.tokens, media.lengths, max_new_tokens=8, **options)
        return [[(h.text, pytest.approx(h.score, rel=1e-4)) for h in nbest] for nbest in beams]

    with torch.no_grad():
        want = decode(build(system).eval(), batch)
        model = gpu_stand_in.move(build(system).eval())
        with gpu():
            assert decode(model, there(batch)) == want


@pytest.mark.parametrize(
    ("how", "most"), [("auto", 11), ("grouped", 11), ("eager", 17), ("dense", 11)]
)
def test_a_step_in_bfloat16_waits_as_often_for_any_batch(build, batch, how, most):
    counts = []
    for repeats in (1, 3):
        longer = {name: torch.cat([value] * repeats) for name, value in batch.items()}
        model = gpu_stand_in.move(build("dedr", "bfloat16"))
        model.projector.mixture.mix = partial(mix, how=how)
        with gpu(autocast=True), torch.no_grad():
            loss, *_ = model(**there(longer))
        assert loss.isfinite().there
        counts.append(sum(gpu_stand_in.waits.values()))
    assert counts == [most, most], gpu_stand_in.waits
