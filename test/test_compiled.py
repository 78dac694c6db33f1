"""Compiled layers compute what plain ones do, and run in training only."""

from functools import partial

import pytest
import torch

from espnet_smop import compiled
from espnet_smop.tasks.avsr import AVSRTask


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of compiled layers; what is compiled is not faster here, but the same."""
    made = []

    def fake_compile(function, *, dynamic):
        assert dynamic

        def forward(self, *args, **kwargs):
            made.append(type(self).__name__)
            return function(self, *args, **kwargs)

        return forward

    monkeypatch.setattr(compiled.torch, "compile", fake_compile)
    return made


@pytest.fixture
def build(model_args):
    def build(on, **decoder_conf):
        args = model_args()
        for part in ("audio_frontend_conf", "video_frontend_conf", "decoder_conf"):
            setattr(args, part, {**getattr(args, part), "compile": on})
        args.decoder_conf.update(decoder_conf)
        torch.manual_seed(0)
        return AVSRTask.build_model(args)

    return build


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "speech": torch.randn(2, 6400, generator=generator),
        "speech_lengths": torch.tensor([6400, 5000]),
        "video": torch.randn(2, 10, 88, 88, generator=generator),
        "video_lengths": torch.tensor([10, 8]),
        "text": torch.tensor([[5, 6, 7], [8, 9, -1]]),
        "text_lengths": torch.tensor([3, 2]),
    }


def test_all_layers_are_compiled_and_run_in_training_only(build, batch, calls):
    model = build(True)
    assert model.state_dict().keys() == build(False).state_dict().keys()
    model.train()(**batch)
    each = {"WhisperEncoderLayer": 2, "EncoderLayer": 2, "LlamaDecoderLayer": 2}
    assert {name: calls.count(name) for name in set(calls)} == each
    calls.clear()
    model.eval()
    with torch.no_grad():
        model(**batch)
        model.decoder.generate({"audio": torch.randn(1, 3, 32)}, {"audio": torch.tensor([3])},
                               beam_size=2, max_new_tokens=2)  # fmt: skip
    assert not calls


def test_checkpointing_recomputes_compiled_layers(build, batch, calls):
    model = build(True, gradient_checkpointing=True).train()
    model(**batch)[0].backward()
    assert calls.count("LlamaDecoderLayer") == 4


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_traced_training_gives_the_same_loss_and_gradients(
    build, batch, checkpointing, monkeypatch
):
    """The graphs that ``torch.compile`` takes from the layers, run without making code of them."""
    trace = partial(torch.compile, backend="eager")
    monkeypatch.setattr(compiled.torch, "compile", trace)
    gradients = {}
    for on in (False, True):
        model = build(on, gradient_checkpointing=checkpointing).train()
        losses = []
        for end in (10, 8):  # another length is no problem
            cut = {**batch, "video": batch["video"][:, :end]}
            cut["video_lengths"] = batch["video_lengths"].clamp(max=end)
            loss, _, _ = model(**cut)
            loss.backward()
            losses.append(loss.detach())
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients[on] = [torch.stack(losses), *(p.grad for p in trained)]
    for plain, fast in zip(gradients[False], gradients[True], strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
