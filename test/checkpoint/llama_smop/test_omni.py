"""Omni-AVSR and Llama-MTSK against numbers of their public code (``golden/{omni,mtsk}_*``)."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperModel,
)

from espnet_smop.checkpoint.fairseq import convert, read_checkpoint
from espnet_smop.checkpoint.llama_smop.experiment import export_checkpoint, import_checkpoint
from espnet_smop.checkpoint.llama_smop.frontends import (
    UnmaskedAVHuBERTFrontend,
    UnmaskedWhisperFrontend,
)
from espnet_smop.checkpoint.llama_smop.names import CheckpointError, trained_weights
from espnet_smop.checkpoint.llama_smop.settings import Options
from espnet_smop.frontend.avhubert import save
from espnet_smop.tasks.avsr import AVSRTask

GOLDEN = Path(__file__).parents[2] / "golden"
AVHUBERT = GOLDEN / "avhubert_tiny_fairseq.pt"
TASKS = {"audio": "asr", "video": "vsr", "audiovisual": "avsr"}
CLOSE = {"atol": 1e-4, "rtol": 0}


def load(name):
    return torch.load(GOLDEN / name, weights_only=True)


@pytest.fixture(scope="module")
def base():
    return load("omni_base.pt")


@pytest.fixture(scope="module")
def keys():
    return json.loads((GOLDEN / "omni_keys.json").read_text())


def frozen_state(base):
    """The frozen part of a checkpoint, by public names."""
    video = read_checkpoint(AVHUBERT)["model"]
    return base["state_dict"] | {f"video_encoder.{name}": w for name, w in video.items()}


@pytest.fixture(scope="module")
def bases(base, tmp_path_factory):
    """Directories with the base models that the golden numbers were made with."""
    root = tmp_path_factory.mktemp("bases")
    state = base["state_dict"]

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    whisper = WhisperModel(WhisperConfig.from_dict(base["whisper_config"]))
    whisper.encoder.load_state_dict(part("audio_encoder."))
    whisper.save_pretrained(root / "whisper")
    config = LlamaConfig.from_dict(base["llm_config"])
    llm = LlamaForCausalLM(config)
    weights = part("llm.")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][: config.vocab_size]
    llm.load_state_dict(weights)
    llm.save_pretrained(root / "llm")
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(base["tokenizer_json"]),
        bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>",
    ).save_pretrained(root / "llm")  # fmt: skip
    save(*convert(read_checkpoint(AVHUBERT)), root / "avhubert")
    return {name: str(root / name) for name in ("whisper", "avhubert", "llm")}


def imported(state, bases, out, **options):
    """Import a checkpoint, and let the frontends treat padding as the public code does."""
    torch.save(state, out.with_suffix(".pth"))
    import_checkpoint(out.with_suffix(".pth"), out, **bases, options=Options(**options))
    config = out / "config.yaml"
    model, args = AVSRTask.load_model(str(config), str(out / "imported.pth"))
    return model, args


def unmask(model):
    model.frontends["audio"].__class__ = UnmaskedWhisperFrontend
    model.frontends["video"].__class__ = UnmaskedAVHuBERTFrontend
    return model


def batch_of(base):
    """The golden batch as ESPnet passes it."""
    given = base["batch"]
    texts = [row[1:][row[1:] < 331] for row in given["tokens"]]  # without BOS, EOS and padding
    return {
        "speech": given["audio"][..., 0], "speech_lengths": given["lengths"],
        "video": given["video"][:, :, 0], "video_lengths": torch.tensor([23, 17]),
        "text": torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-1),
        "text_lengths": torch.tensor(list(map(len, texts))),
    }  # fmt: skip


def utterance_of(base, kind, index):
    given = base["test_batches"][kind][index]
    inputs = dict.fromkeys(("speech", "speech_lengths", "video", "video_lengths"))
    if "audio" in given:
        inputs |= {"speech": given["audio"][..., 0], "speech_lengths": given["lengths"]}
    if "video" in given:
        video = given["video"][:, :, 0]
        inputs |= {"video": video, "video_lengths": torch.tensor([video.shape[1]])}
    return inputs


def run(model, batch, views, monkeypatch):
    """Return the loss of a step with these views, and of each the logits ``(N, V)`` of the text."""
    seen = []
    compute = model.decoder.logits
    with monkeypatch.context() as patch:
        patch.setattr(model.decoder, "logits", lambda h: seen.append(compute(h)) or seen[-1])
        patch.setattr(model.views, "all", views)  # all views of the model in evaluation mode
        loss, stats, _ = model(**batch)
    return loss, stats, seen


def decoded(model, inputs, view, beams):
    projected = model.project(**inputs, view=view)
    with model.decoder.active(view), torch.no_grad():
        [[best]] = model.decoder.generate(
            projected.tokens, projected.lengths, beam_size=beams, length_penalty=1.0,
            max_new_tokens=10,
        )  # fmt: skip
    return best


def check_ids(model, inputs, view, expected):
    for beams, ids in expected["generated_ids"].items():
        ids = ids[0].tolist()
        found = decoded(model, inputs, view, beams)
        assert found.ids == [i for i in ids if i != 331]
        assert found.finished == (331 in ids)
        if beams > 1:
            score = expected["margins"][beams][0]
            assert found.score == pytest.approx(score, abs=1e-4)


class TestOmni:
    @pytest.fixture(scope="class")
    @classmethod
    def golden(cls):
        return load("omni_ST_perrate.pt")

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, base, golden):
        return frozen_state(base) | golden["state_dict_trainable"]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, state, bases, tmp_path_factory):
        out = tmp_path_factory.mktemp("omni") / "exp"
        model, args = imported(state, bases, out, rank=8)
        assert args.model_conf["tasks"] == {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}
        assert args.projector_conf == {
            "hidden_size": 56, "layer_norm": False, "per_rate": True,
            "downsample": {
                "mode": "avgpool", "audio": [4, 16], "video": [2, 5], "remainder": "drop",
            },
        }  # fmt: skip
        lora = {"r": 12, "alpha": 6, "per": "task", "shared": True}
        assert lora.items() <= args.decoder_conf["lora"].items()
        assert args.video_frontend_conf["lora"]["alpha"] == 8
        assert args.preprocessor_conf == {"video_multiple": 1}
        return model

    def test_encoders_and_projectors(self, model, base, golden):
        batch = batch_of(base)
        unmask(model)
        inputs = [batch[n] for n in ("speech", "speech_lengths", "video", "video_lengths")]
        features, lengths, _ = model.encode(*inputs)
        assert lengths["audio"].tolist() == [46, 46] == [golden["kept_whisper_frames"]] * 2
        whisper = golden["whisper_first50"][:, :46]
        torch.testing.assert_close(features["audio"], whisper, **CLOSE)
        torch.testing.assert_close(features["video"], golden["video_features_batch"], **CLOSE)
        for view in model.views.all:
            projected = model.project_encoded((features, lengths, {}), view)
            for m, rate in view.rates.items():
                expected = golden[f"{m}_projected"][rate]
                torch.testing.assert_close(projected.tokens[m], expected, **CLOSE)

    def test_losses_and_logits(self, model, base, golden, monkeypatch):
        batch = batch_of(base)
        unmask(model).eval()
        for (audio, video), expected in golden["pairs"].items():
            step = next(
                step for step in model.views.steps
                if step[2].rates == {"audio": audio, "video": video}
            )  # fmt: skip
            loss, stats, logits = run(model, batch, step, monkeypatch)
            assert float(loss) == pytest.approx(float(expected["total"]), abs=1e-4)
            for view, weighted, own, text in zip(
                step, expected["weighted_losses"], expected["unweighted_losses"], logits,
                strict=True,
            ):  # fmt: skip
                found = float(stats[f"loss_ce_{view.tag}"])
                assert found == pytest.approx(float(own), abs=1e-4)
                assert 3 * view.weight * found == pytest.approx(float(weighted), abs=1e-4)
                [kind] = [k for k, task in TASKS.items() if task == view.task]
                if "logits_at_labels" in expected:
                    torch.testing.assert_close(text, expected["logits_at_labels"][kind], **CLOSE)
                if "logits" in expected:
                    labels = expected["labels"][kind]
                    predicted = (labels[:, 1:] != -100).nonzero(as_tuple=True)
                    whole = expected["logits"][kind][:, :-1][predicted]
                    torch.testing.assert_close(text, whole, **CLOSE)

    def test_gradients(self, model, base, golden, monkeypatch):
        unmask(model).eval()
        model.zero_grad()
        step = next(step for step in model.views.steps if step[2].rates == {"audio": 4, "video": 5})
        loss, _, _ = run(model, batch_of(base), step, monkeypatch)
        loss.backward()
        check_gradients(
            model, golden["grads_of_total_pair_4_5"], golden["trainables_without_gradient_pair_4_5"]
        )

    @pytest.mark.parametrize("kind", list(TASKS))
    def test_ids(self, model, base, golden, kind):
        model.eval()
        decodes = {k: v for k, v in golden["test_mode"].items() if k[0] == kind}
        assert len(decodes) in (4, 8)
        for (_, audio, video, utt), expected in decodes.items():
            rates = {m: r for m, r in (("audio", audio), ("video", video)) if r is not None}
            view = model.views.find(TASKS[kind], rates)
            check_ids(model, utterance_of(base, kind, int(utt[-1]) - 1), view, expected)

    def test_written_back_it_is_the_checkpoint(self, model, state, tmp_path, bases):
        out = tmp_path / "exp"
        torch.save(state, tmp_path / "original.pth")
        import_checkpoint(tmp_path / "original.pth", out, **bases, options=Options(rank=8))
        export_checkpoint(out, "imported.pth", tmp_path / "original.pth", tmp_path / "back.pth")
        back = torch.load(tmp_path / "back.pth", weights_only=True)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)

    def test_other_prompts_are_refused(self, state, bases, tmp_path):
        other = {**state, "prompt_video": state["prompt_audio"].clone()}
        with pytest.raises(CheckpointError, match="prompt_video is not the prompt 'Transcribe vid"):
            imported(other, bases, tmp_path / "exp", rank=8)


def check_gradients(model, expected, without):
    public = {w.untyped_storage().data_ptr(): n for n, w in trained_weights(model).items()}
    found = {}
    for parameter in model.parameters():
        name = public.get(parameter.untyped_storage().data_ptr())
        if name is not None and parameter.grad is not None:
            found[name] = parameter.grad.view(parameter.shape)
    assert set(public.values()) == found.keys() | set(without)
    assert found.keys() >= expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        close = {"atol": 1e-3 * scale + 1e-6, "rtol": 0}
        torch.testing.assert_close(found[name].reshape(gradient.shape), gradient, **close)


class TestMTSK:
    @pytest.fixture(scope="class")
    @classmethod
    def golden(cls):
        return load("mtsk_MSS.pt")

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, base, golden):
        frozen = {k: v for k, v in frozen_state(base).items() if not k.startswith("prompt_")}
        return frozen | golden["state_dict_trainable"]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, state, bases, tmp_path_factory):
        out = tmp_path_factory.mktemp("mtsk") / "exp"
        model, args = imported(state, bases, out, rank=8)
        assert args.model_conf == {"rate_pairs": "all"}
        assert args.decoder_conf["lora"]["per"] == "rates" and args.decoder_conf["lora"]["shared"]
        return model

    def test_losses_logits_and_gradients(self, model, base, golden, monkeypatch):
        unmask(model).eval().zero_grad()
        pairs = [tuple(view.rates.values()) for view in model.views.all]
        assert pairs == list(map(tuple, golden["rate_pairs_audio_video_in_order"]))
        loss, stats, logits = run(model, batch_of(base), model.views.all, monkeypatch)
        assert float(loss) == pytest.approx(float(golden["mean_loss"]), abs=1e-4)
        for view, expected in zip(model.views.all, golden["losses"], strict=True):
            found = float(stats[f"loss_ce_{view.tag}"])
            assert found == pytest.approx(float(expected), abs=1e-4)
        torch.testing.assert_close(logits[0], golden["logits_at_labels"][4, 2], **CLOSE)
        loss.backward()
        check_gradients(model, golden["grads_of_mean"], golden["trainables_without_gradient"])

    def test_ids(self, model, base, golden):
        model.eval()
        for (audio, video, utt), expected in golden["test_mode"].items():
            view = model.views.find("avsr", {"audio": audio, "video": video})
            check_ids(model, utterance_of(base, "audiovisual", int(utt[-1]) - 1), view, expected)

    @pytest.mark.parametrize("modality", ["audio", "video"])
    def test_a_model_of_one_modality(self, state, base, bases, golden, modality, tmp_path):
        """Its rates take the place of the pairs."""
        other = {"audio": "video", "video": "audio"}[modality]
        pairs_only = ("local_loras.2.", "local_loras.3.")
        own = {
            k: v
            for k, v in state.items()
            if not k.startswith(f"{other}_") and not any(part in k for part in pairs_only)
        }
        unused = {"audio": "whisper", "video": "avhubert"}[other]
        used = {name: path for name, path in bases.items() if name != unused}
        model, _ = imported(own, used, tmp_path / "exp", rank=8)
        for frontend, unmasked in (
            ("audio", UnmaskedWhisperFrontend), ("video", UnmaskedAVHuBERTFrontend),
        ):  # fmt: skip
            if frontend in model.frontends:
                model.frontends[frontend].__class__ = unmasked
        expected = golden["single_modality_with_lora_index_0_and_1"][modality]
        loss, stats, _ = model(**batch_of(base))
        assert float(loss) == pytest.approx(float(expected["mean"]), abs=1e-4)
        for view, single in zip(model.views.all, expected["losses"], strict=True):
            assert float(stats[f"loss_ce_{view.tag}"]) == pytest.approx(float(single), abs=1e-4)


VARIANTS = {
    "omni_S_perrate": (None, False, True),
    "omni_T_perrate": ("task", False, True),
    "omni_ST_perrate": ("task", True, True),
    "omni_S_single": (None, False, False),
    "omni_T_single": ("task", False, False),
    "omni_ST_single": ("task", True, False),
    "mtsk_MS": (None, False, True),
    "mtsk_SS": ("rates", False, True),
    "mtsk_MSS": ("rates", True, True),
    "mtsk_MS_stack": (None, False, True),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_imported_and_written_back(base, bases, keys, variant, tmp_path):
    per, shared, per_rate = VARIANTS[variant]
    spec = keys[variant]
    generator = torch.Generator().manual_seed(0)
    state = frozen_state(base)
    state = {k: v for k, v in state.items() if k not in spec.get("missing_from_common", ())}
    assert state.keys() == keys["common_to_all_omni"].keys() - set(
        spec.get("missing_from_common", ())
    )
    state |= {
        name: torch.randn(shape, generator=generator) * 0.1
        for name, shape in spec["keys_beyond_common"].items()
    }
    model, args = imported(state, bases, tmp_path / "exp", rank=spec["args"]["rank"])
    lora = args.decoder_conf["lora"]
    assert (lora.get("per"), lora.get("shared", False)) == (per, shared)
    assert args.projector_conf.get("per_rate", False) == per_rate
    layer_norm = any(name.startswith("audio_proj") and ".3." in name for name in state)
    assert args.projector_conf["layer_norm"] == layer_norm
    downsample = args.projector_conf["downsample"]
    assert (downsample["audio"], downsample["video"]) == ([4, 16], [2, 5])
    assert downsample["mode"] == ("stack" if "stack" in variant else "avgpool")
    own = trained_weights(model)
    assert own.keys() == spec["keys_beyond_common"].keys()
    assert all(torch.equal(own[name], state[name]) for name in own)
    export_checkpoint(tmp_path / "exp", "imported.pth", tmp_path / "exp.pth", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def mome_state(base, keys, spec, routers=1):
    """A checkpoint of Llama-MTSK with adapters instead of LoRA, its weights drawn at random."""
    shapes = {
        name: shape
        for name, shape in keys["mtsk_MS"]["keys_beyond_common"].items()
        if "lora" not in name
    }
    for name, shape in spec["adapter_keys"].items():
        if name.endswith("gate.weight") and routers > 1:
            for i in range(routers):
                shapes[f"llm.{name.replace('gate.', f'gate.{i}.')}"] = shape
        else:
            shapes[f"llm.{name}"] = shape
    generator = torch.Generator().manual_seed(0)
    frozen = {k: v for k, v in frozen_state(base).items() if not k.startswith("prompt_")}
    return frozen | {n: torch.randn(s, generator=generator) * 0.1 for n, s in shapes.items()}


@pytest.mark.parametrize("routers", [1, 4])
def test_mixtures_of_adapters_are_imported_and_written_back(base, bases, keys, routers, tmp_path):
    state = mome_state(base, keys, keys["mome_llama.MHSA"], routers)
    top_k = 2 if routers == 1 else (2, 1, 2, 1)
    model, args = imported(
        state, bases, tmp_path / "exp", mome_top_k=top_k, mome_place="layer"
    )  # fmt: skip
    assert args.decoder_conf["lora"] is None
    assert args.decoder_conf["mome"] == {
        "num_experts": 6, "num_shared": 1, "bottleneck": 4, "place": "layer",
        "router": "shared" if routers == 1 else "per_rate",
        "top_k": 2 if routers == 1 else {"a4_v2": 2, "a16_v2": 1, "a4_v5": 2, "a16_v5": 1},
    }  # fmt: skip
    own = trained_weights(model)
    assert own.keys() == state.keys() - frozen_state(base).keys()
    assert all(torch.equal(own[name], state[name]) for name in own)
    prefix = "llm.model.layers.1.MoE_adapter."
    mixture = model.decoder.mome.layers[1]
    x = torch.randn(5, mixture.size)
    experts = [
        torch.nn.functional.linear(
            torch.nn.functional.gelu(
                torch.nn.functional.linear(
                    x,
                    state[f"{prefix}{kind}.linear_downsample.weight"],
                    state[f"{prefix}{kind}.linear_downsample.bias"],
                )
            ),
            state[f"{prefix}{kind}.linear_upsample.weight"],
            state[f"{prefix}{kind}.linear_upsample.bias"],
        )
        for kind in (*(f"experts.{e}" for e in range(6)), "shared_experts.0")
    ]
    for i, view in enumerate(model.views.all):
        gate = state[f"{prefix}gate{f'.{i}' if routers > 1 else ''}.weight"]
        probs, chosen = (x @ gate.T).softmax(-1).topk(2 if routers == 1 else top_k[i])
        weights = torch.zeros(5, 6).scatter(1, chosen, probs / probs.sum(-1, keepdim=True))
        expected = sum(weights[:, e, None] * experts[e] for e in range(6)) + experts[6]
        with model.decoder.active(view), torch.no_grad():
            y, _ = mixture(x[None])
        torch.testing.assert_close(y[0], expected, **CLOSE)
    export_checkpoint(tmp_path / "exp", "imported.pth", tmp_path / "exp.pth", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_number_of_experts_for_each_pair_of_rates(base, bases, keys, tmp_path):
    state = mome_state(base, keys, keys["mome_llama.MHSA"])
    with pytest.raises(CheckpointError, match="--mome_top_k 2,1: expected one number, or 4"):
        imported(state, bases, tmp_path / "exp", mome_top_k=(2, 1))
