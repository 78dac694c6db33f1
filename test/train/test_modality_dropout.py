import pytest
import torch

from espnet_smop.projector.abs_projector import ProjectorOutput
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.modality_dropout import ModalityDropout


def projected(batch, modalities=("audio", "video")):
    lengths = torch.arange(1, batch + 1)
    return ProjectorOutput({}, dict.fromkeys(modalities, lengths))


def test_an_utterance_lacks_one_modality_at_most():
    torch.manual_seed(0)
    given = projected(20_000)
    out = ModalityDropout({"audio": 0.2, "video": 0.5}).train()(given)
    lacks = {m: n == 0 for m, n in out.lengths.items()}
    assert float(lacks["audio"].float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(lacks["video"].float().mean()) == pytest.approx(0.5, abs=0.015)
    assert not (lacks["audio"] & lacks["video"]).any()
    for modality, n in out.lengths.items():
        kept = ~lacks[modality]
        assert torch.equal(n[kept], given.lengths[modality][kept])


def test_nothing_is_dropped_or_drawn_where_it_is_off():
    given, one = projected(8), projected(8, ("video",))
    state = torch.get_rng_state()
    assert ModalityDropout().train()(given) is given
    assert ModalityDropout({"audio": 0.0}).train()(given) is given
    assert ModalityDropout({"audio": 0.5, "video": 0.5}).eval()(given) is given
    assert ModalityDropout({"audio": 0.5, "video": 0.5}).train()(one) is one
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "conf", [{"audio": 0.7, "video": 0.4}, {"audio": -0.1}, {"lips": 0.1}, 0.5, {"audio": "0.5"}]
)
def test_wrong_probabilities_are_refused(conf):
    with pytest.raises(ValueError, match="modality_dropout is .*, expected"):
        ModalityDropout(conf)


def random_batch():
    generator = torch.Generator().manual_seed(0)
    frames = torch.tensor([30, 17, 8, 25])
    return {
        "speech": torch.randn(4, 30 * 640, generator=generator),
        "speech_lengths": frames * 640,
        "video": torch.randn(4, 30, 88, 88, generator=generator),
        "video_lengths": frames,
        "text": torch.randint(3, 40, (4, 6), generator=generator),
        "text_lengths": torch.tensor([6, 3, 4, 5]),
    }


@pytest.mark.parametrize("prompt", [None, {"asr": "lay", "avsr": "set red"}])
def test_an_utterance_without_audio_is_one_of_a_model_that_gets_none(model_args, prompt):
    """Its input has neither tokens nor delimiters, and the prompt is that of what is left."""
    args = model_args()
    args.decoder_conf = {**args.decoder_conf, "prompt": prompt}
    model = AVSRTask.build_model(args).eval()
    batch = random_batch()
    text, text_lengths = batch.pop("text"), batch.pop("text_lengths")
    out = model.project(**batch)
    total, number = 0.0, 0
    lengths = {m: n.clone() for m, n in out.lengths.items()}
    for b, lacking in enumerate(("audio", None, "video", "audio")):
        kept = [m for m in lengths if m != lacking]
        if lacking is not None:
            lengths[lacking][b] = 0
        single = model.decoder(
            {m: out.tokens[m][b : b + 1] for m in kept},
            {m: out.lengths[m][b : b + 1] for m in kept},
            text[b : b + 1],
            text_lengths[b : b + 1],
        )
        total, number = total + single.loss * single.num_tokens, number + single.num_tokens
    together = model.decoder(out.tokens, lengths, text, text_lengths)
    torch.testing.assert_close(together.loss, total / number, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("projector", ["smop", "mlp"])
def test_in_training_alone_and_with_a_gradient_for_every_parameter(model_args, projector):
    changes = {"projector": projector, "projector_conf": {"hidden_size": 16}}
    args = model_args(**changes, model_conf={"modality_dropout": {"audio": 1.0}})
    model, batch = AVSRTask.build_model(args), random_batch()
    model.train()
    loss, stats, _ = model(**batch)
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing

    deaf = model.decoder(
        *({"video": part["video"]} for part in _tokens_and_lengths(model, batch)),
        batch["text"],
        batch["text_lengths"],
    )
    torch.testing.assert_close(stats["loss_ce"][0], deaf.loss.detach(), atol=1e-5, rtol=1e-5)
    model.eval()
    _, stats, _ = model(**batch)
    assert float(stats["loss_ce"]) != pytest.approx(float(deaf.loss.detach()), abs=1e-4)


def _tokens_and_lengths(model, batch):
    out = model.project(**{name: x for name, x in batch.items() if "text" not in name})
    return out.tokens, out.lengths


def test_not_during_the_warm_start(model_args):
    conf = {"modality_dropout": {"audio": 1.0}, "ctc_warmup_steps": 1}
    model, batch = AVSRTask.build_model(model_args(model_conf=conf)), random_batch()
    plain = AVSRTask.build_model(model_args(model_conf={"ctc_warmup_steps": 1}))
    plain.load_state_dict(model.state_dict())
    losses = [m.train()(**batch)[1]["loss_ctc"] for m in (model, plain)]
    assert torch.equal(*losses)
    first, second = (m(**batch)[1]["loss_ce"] for m in (model, plain))
    assert not torch.equal(first, second)


def test_a_single_modality_has_nothing_to_drop(model_args):
    args = model_args(video_frontend=None, model_conf={"modality_dropout": {"audio": 0.5}})
    with pytest.raises(ValueError, match="modality_dropout is set, but the model has a single"):
        AVSRTask.build_model(args)
