import pytest
import torch

from espnet_smop.base_model import freeze
from espnet_smop.frontend.precomputed import PrecomputedFeatures
from espnet_smop.modality import MODALITIES
from espnet_smop.tasks.avsr import AVSRTask


def random_batch(sizes=(30, 17, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.tensor(sizes)
    longest = max(sizes)
    batch = {
        "speech": torch.randn(len(sizes), longest * 640, generator=generator),
        "speech_lengths": frames * 640,
        "video": torch.randn(len(sizes), longest, 88, 88, generator=generator),
        "video_lengths": frames,
        "text": torch.randint(3, 40, (len(sizes), 6), generator=generator),
        "text_lengths": torch.tensor([6, 3, 4, 5, 2][: len(sizes)]),
    }
    for i, n in enumerate(sizes):
        batch["speech"][i, n * 640 :] = 0
        batch["video"][i, n:] = 0
    return batch


def only(batch, i):
    """Return utterance i alone, without padding."""
    single = {}
    for name in ("speech", "video", "text"):
        length = batch[f"{name}_lengths"][i]
        single[name] = batch[name][i : i + 1, :length]
        single[f"{name}_lengths"] = length[None]
    return single


@pytest.mark.parametrize("routing", ["jejr", "jedr", "dedr"])
@pytest.mark.parametrize("modalities", [("audio",), ("video",), ("audio", "video")])
def test_the_cross_entropy_of_an_utterance_does_not_depend_on_its_batch(
    model_args, routing, modalities
):
    conf = {"routing": routing, "num_experts": 4, "hidden_size": 16}
    changes = {f"{m}_frontend": None for m in {"audio", "video"} - set(modalities)}
    model = AVSRTask.build_model(model_args(projector_conf=conf, **changes)).eval()
    batch = random_batch()
    loss, stats, weight = model(**batch)
    singles = [model(**only(batch, i)) for i in range(3)]
    assert float(weight) == 6 + 3 + 4 + 3
    total = sum(float(s["loss_ce"]) * float(w) for _, s, w in singles)
    assert total / float(weight) == pytest.approx(float(stats["loss_ce"]), abs=1e-4)
    assert float(loss) > float(stats["loss_ce"])


def test_a_model_of_one_view_is_encoder_projector_and_decoder(model_args):
    model = AVSRTask.build_model(model_args())
    batch = random_batch()
    features, lengths = {}, {}
    for m, name in (("audio", "speech"), ("video", "video")):
        features[m], lengths[m] = model.frontends[m](batch[name], batch[f"{name}_lengths"])
    for training in (True, False):
        model.train(training)
        projected = model.projector(features, lengths)
        decoded = model.decoder(
            projected.tokens, projected.lengths, batch["text"], batch["text_lengths"]
        )
        (decoded.loss + projected.aux_loss).backward()
        expected = {n: p.grad for n, p in model.named_parameters()}
        model.zero_grad()
        loss, stats, weight = model(**batch)
        loss.backward()
        assert float(loss) == float(decoded.loss + projected.aux_loss)
        assert weight == decoded.num_tokens
        wanted = {"loss": loss, **decoded.stats, **projected.stats}
        assert {n: float(v) for n, v in stats.items()} == {n: float(v) for n, v in wanted.items()}
        for name, parameter in model.named_parameters():
            grad = expected[name]
            assert parameter.grad is grad is None or torch.equal(parameter.grad, grad)
        model.zero_grad()


def test_a_step_of_several_tasks_adds_their_weighted_losses(model_args):
    """Against models of a single task with the same weights."""
    tasks = {"asr": 1.0, "vsr": 1.5, "avsr": 2.0}
    lora = {"decoder_conf": {**model_args().decoder_conf, "lora": {"r": 2, "per": "task"}}}
    model = AVSRTask.build_model(model_args(model_conf={"tasks": tasks}, **lora)).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    calls = []
    model.frontends["audio"].register_forward_hook(lambda *_: calls.append("encoded"))
    loss, stats, weight = model(**random_batch())
    assert calls == ["encoded"] and int(weight) == 16
    state, losses, means = model.state_dict(), {}, {}
    for task in tasks:
        alone = AVSRTask.build_model(model_args(model_conf={"tasks": {task: 1.0}}, **lora)).train()
        own = {n for n in state if ".lora_" not in n or f".{task}." in n}
        alone.load_state_dict({n: state[n] for n in own})
        losses[task], means[task], _ = alone(**random_batch())
        assert float(stats[f"loss_ce_{task}"]) == pytest.approx(float(means[task]["loss_ce"]))
        assert float(stats[f"acc_{task}"]) == pytest.approx(float(means[task]["acc"]))
    expected = sum(weight * losses[task] for task, weight in tasks.items()) / 3
    assert float(loss) == pytest.approx(float(expected))
    share = sum(w * float(means[t]["loss_ce"]) for t, w in tasks.items()) / 4.5
    assert float(stats["loss_ce"]) == pytest.approx(share)
    assert len(set(map(float, losses.values()))) == 3


def test_rates_change_from_step_to_step_and_validation_has_all(model_args):
    """Against the projections and losses of single views."""
    rates = {"mode": "avgpool", "audio": [2, 4], "video": [1, 3]}
    model = AVSRTask.build_model(
        model_args(
            model_conf={"tasks": {"vsr": 2.0, "avsr": 1.0}, "rate_pairs": "sample"},
            projector_conf={"hidden_size": 16, "downsample": rates, "per_rate": True},
            decoder_conf={**model_args().decoder_conf, "lora": {"r": 2, "per": "rates"}},
        )
    )
    batch = random_batch()
    inputs = [batch[n] for n in ("speech", "speech_lengths", "video", "video_lengths")]
    losses = {}
    for view in model.views.all:
        projected = model.project(*inputs, view=view)
        assert projected.tokens.keys() == set(view.modalities)
        decoded = model.decode(projected, batch["text"], batch["text_lengths"], view)
        losses[view.tag] = float(decoded.loss + projected.aux_loss)
    seen = set()
    for _ in range(4):
        loss, stats, _ = model.train()(**batch)
        [vsr] = [n.removeprefix("loss_ce_") for n in stats if n.startswith("loss_ce_vsr")]
        [avsr] = [n.removeprefix("loss_ce_") for n in stats if n.startswith("loss_ce_avsr")]
        assert float(loss) == pytest.approx((2 * losses[vsr] + losses[avsr]) / 2, rel=1e-5)
        seen |= {vsr, avsr}
    assert seen == losses.keys() and len(seen) == 6
    loss, stats, _ = model.eval()(**batch)
    mean = {task: [v for t, v in losses.items() if t.startswith(task)] for task in ("vsr", "avsr")}
    mean = {task: sum(values) / len(values) for task, values in mean.items()}
    assert float(loss) == pytest.approx((2 * mean["vsr"] + mean["avsr"]) / 2, rel=1e-5)
    assert {n.removeprefix("acc_") for n in stats if n.startswith("acc_")} == seen
    assert int(model.views.step) == 4  # validation does not count
    assert "views.step" in model.state_dict()


def test_hypotheses_do_not_depend_on_the_batch(model_args):
    model = AVSRTask.build_model(model_args()).eval()
    batch = random_batch((30, 17, 8, 25, 12))

    def texts(batch):
        inputs = (batch[n] for n in ("speech", "speech_lengths", "video", "video_lengths"))
        projected = model.project(*inputs)
        nbests = model.decoder.generate(
            projected.tokens, projected.lengths, beam_size=4, max_new_tokens=12
        )
        return [nbest[0].ids for nbest in nbests]

    assert texts(batch) == [texts(only(batch, i))[0] for i in range(5)]


def test_the_checkpoint_holds_what_is_trained_and_nothing_else(model_args):
    model = AVSRTask.build_model(model_args(decoder_conf={**model_args().decoder_conf}))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(model.state_dict()) == trained
    assert {name.split(".")[0] for name in trained} == {"projector", "decoder"}
    assert sum("lora_" in name for name in trained) == 2 * 2 * 2  # layers, q and v, A and B


def test_untrained_delimiters_are_in_the_checkpoint(model_args):
    conf = {**model_args().decoder_conf, "train_delimiters": False}
    model = AVSRTask.build_model(model_args(decoder_conf=conf))
    assert not model.decoder.delimiters.requires_grad
    assert "decoder.delimiters" in model.state_dict()


def test_loading_restores_the_model(model_args):
    first, second = (AVSRTask.build_model(model_args()).eval() for _ in range(2))
    batch = random_batch()
    assert float(first(**batch)[0]) != float(second(**batch)[0])
    second.load_state_dict(first.state_dict())
    assert float(first(**batch)[0]) == float(second(**batch)[0])


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_that_does_not_fit_is_refused(model_args, strict):
    model = AVSRTask.build_model(model_args())
    state = model.state_dict()
    name = next(iter(state))
    without = {k: v for k, v in state.items() if k != name}
    with pytest.raises(RuntimeError, match=f"missing: {name}"):
        model.load_state_dict(without, strict=strict)
    with pytest.raises(RuntimeError, match="unexpected: ctc.weight"):
        model.load_state_dict({**state, "ctc.weight": state[name]}, strict=strict)
    with pytest.raises(RuntimeError, match=r"of another shape: .*\(checkpoint \(2,\), model"):
        model.load_state_dict({**state, name: torch.zeros(2)}, strict=strict)


def test_only_what_is_trained_changes_in_training(model_args):
    model = AVSRTask.build_model(model_args()).train()
    everything = {n: t.clone() for n, t in torch.nn.Module.state_dict(model).items()}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1
    )
    for step in range(20):
        loss, _, _ = model(**random_batch(seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = set(model.state_dict())
    after = torch.nn.Module.state_dict(model)
    assert {n for n, t in everything.items() if not torch.equal(t, after[n])} == trained


def test_frozen_bases_keep_their_dtype(model_args):
    changes = {
        "audio_frontend_conf": {**model_args().audio_frontend_conf, "dtype": "bfloat16"},
        "decoder_conf": {**model_args().decoder_conf, "dtype": "bfloat16"},
    }
    model = AVSRTask.build_model(model_args(**changes)).to(dtype=torch.float32, device="cpu")
    assert model.frontends["audio"].encoder.conv1.weight.dtype == torch.bfloat16
    assert model.decoder.llm.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    loss, _, _ = model(**random_batch())
    loss.backward()
    assert torch.isfinite(loss)


def test_a_missing_input_is_named(model_args):
    model = AVSRTask.build_model(model_args())
    batch = random_batch()
    del batch["video"], batch["video_lengths"]
    with pytest.raises(ValueError, match=r"no 'video': give video.scp.*video_frontend: null"):
        model(**batch)


def test_the_warm_start_trains_the_projector_alone_and_then_ends(model_args):
    torch.manual_seed(0)
    model = AVSRTask.build_model(model_args(model_conf={"ctc_warmup_steps": 2})).train()
    lora = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    table = model.decoder.llm.get_input_embeddings().weight
    scales = [p for n, p in model.projector.named_parameters() if n.endswith(".scale")]
    assert scales
    for scale in scales:
        assert torch.allclose(scale, table.square().mean().sqrt().expand_as(scale))
    seen = []
    for step in range(4):
        loss, stats, weight = model(**random_batch(seed=step))
        seen.append((sorted(stats.keys() & {"loss_ctc", "loss_ce"}), int(weight)))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        same = all(torch.equal(model.get_parameter(n), p) for n, p in lora.items())
        assert same == (step < 2)
    assert seen == [(["loss_ctc"], 13)] * 2 + [(["loss_ce"], 16)] * 2


def test_validation_and_resuming_know_where_the_warm_start_is(model_args):
    model = AVSRTask.build_model(model_args(model_conf={"ctc_warmup_steps": 2})).train()
    model(**random_batch())
    for _ in range(3):  # validation is no step
        stats = model.eval()(**random_batch())[1]
        assert "loss_ctc" in stats and "loss_ce" not in stats and stats["acc"] == 0
    resumed = AVSRTask.build_model(model_args(model_conf={"ctc_warmup_steps": 2})).train()
    resumed.load_state_dict(model.state_dict())
    assert "loss_ctc" in resumed(**random_batch())[1]
    assert "loss_ce" in resumed(**random_batch())[1]
    assert "loss_ce" in resumed.eval()(**random_batch())[1]


def test_the_warm_start_chooses_from_the_tokens_of_the_transcripts(model_args, tmp_path):
    data = {}
    for kind, text in (("train", "a word"), ("valid", "a letter")):
        (tmp_path / kind).write_text(f"id {text}\n")
        sources = [(str(tmp_path / kind), "text", "text")]
        data[f"{kind}_data_path_and_name_and_type"] = sources
    model = AVSRTask.build_model(model_args(model_conf={"ctc_warmup_steps": 2}, **data))
    expected = {i for text in ("a word", "a letter") for i in model.decoder.encode_text(text)}
    assert model.warm_start.vocabulary.tolist() == sorted(expected)
    assert "warm_start.vocabulary" not in model.state_dict()


def test_an_unknown_key_of_model_conf_is_named(model_args):
    with pytest.raises(ValueError, match=r"unknown key 'ctc_warmup'.*ctc_warmup_steps"):
        AVSRTask.build_model(model_args(model_conf={"ctc_warmup": 2}))


@pytest.mark.parametrize("cached", [("audio",), ("audio", "video")])
def test_features_computed_before_give_the_same_loss_and_gradients(model_args, cached):
    model = AVSRTask.build_model(model_args()).eval()
    batch = random_batch()
    expected, expected_stats, _ = model(**batch)
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for modality in cached:
        name = MODALITIES[modality].data_name
        frontend = model.frontends[modality]
        batch[name], batch[f"{name}_lengths"] = frontend(batch[name], batch[f"{name}_lengths"])
        model.frontends[modality] = PrecomputedFeatures(frontend)
    loss, stats, _ = model(**batch)
    loss.backward()
    assert torch.equal(loss, expected)
    assert {k: float(v) for k, v in stats.items()} == {
        k: float(v) for k, v in expected_stats.items()
    }
    assert all(
        torch.equal(p.grad, gradients[n]) for n, p in model.named_parameters() if n in gradients
    )


def test_features_that_cannot_be_the_frontends_are_refused(model_args):
    batch = random_batch()
    batch |= {"speech": torch.zeros(3, 10, 7), "speech_lengths": batch["text_lengths"]}
    model = AVSRTask.build_model(model_args())
    model.frontends["audio"] = PrecomputedFeatures(model.frontends["audio"])
    with pytest.raises(ValueError, match=r"\(batch, frames, 24\), but got \(3, 10, 7\)"):
        model(**batch)
    with pytest.raises(ValueError, match=r"expected precomputed features"):
        model(**random_batch())  # waveforms
    conf = {"fusion": {"audio": "dci"}, "hidden_size": 16}
    model = AVSRTask.build_model(model_args(projector_conf=conf))
    model.frontends["audio"] = PrecomputedFeatures(model.frontends["audio"])
    batch["speech"] = torch.zeros(3, 10, 24)
    with pytest.raises(ValueError, match=r"fusion needs all layers"):
        model(**batch)


def test_a_base_that_a_projector_freezes_is_in_the_fingerprints(model_args):
    model = AVSRTask.build_model(model_args())
    before = model.fingerprints()
    model.projector.extra = freeze(torch.nn.Linear(2, 2))
    after = model.fingerprints()
    assert after.keys() - before.keys() == {"projector.extra"}
    assert before.items() <= after.items()
