import shutil

import numpy as np
import pytest
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_smop.projector.router import Router
from espnet_smop.results.operations import count_flops
from espnet_smop.results.parameters import count_parameters
from espnet_smop.results.phones import CLASSES, Alignment
from espnet_smop.results.routing_pass import count_usage, routings, run_pass
from espnet_smop.tasks.avsr import AVSRTask


@pytest.fixture
def experiment(model_args, tmp_path):
    def make(**changes):
        args = model_args(**changes)
        torch.manual_seed(0)
        model = AVSRTask.build_model(args)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
        torch.save(model.state_dict(), tmp_path / "model.pth")
        return model.eval()

    return make


def slow_recount(model, routers, batches):
    """Count first and second choices token by token, from the routers' inputs."""
    counts = {}
    for batch in batches:
        seen = {}
        hooks = [
            router.register_forward_hook(
                lambda module, args, output, name=name, seen=seen: seen.update({name: args[0]})
            )
            for name, router in routers.items()
        ]
        with torch.no_grad():
            out = model.project(
                batch["speech"], batch["speech_lengths"], batch["video"], batch["video_lengths"]
            )
        for hook in hooks:
            hook.remove()
        for name, x in seen.items():
            parts = {name: x}
            if name == "joint":
                n = int(out.lengths["audio"])
                parts = {"audio": x[:n], "video": x[n:]}
            for modality, tokens in parts.items():
                table = counts.setdefault(
                    (name, modality), np.zeros((2, routers[name].num_experts), int)
                )
                for token in tokens:
                    scores = [float(row @ token) for row in routers[name].gate.weight.detach()]
                    ranked = sorted(range(len(scores)), key=lambda e: -scores[e])
                    for choice in range(2):
                        table[choice, ranked[choice]] += 1
    return counts


@pytest.mark.parametrize("routing", ["dedr", "jejr"])
def test_counts_are_those_of_a_slow_recount(experiment, dump_dir, tmp_path, routing):
    conf = {"routing": routing, "num_experts": 4, "hidden_size": 16}
    model = experiment(projector_conf=conf)
    uids = [line.split()[0] for line in (dump_dir / "text").read_text().splitlines()]
    result = run_pass(
        tmp_path / "config.yaml", tmp_path / "model.pth", dump_dir,
        uids=uids, strip_uid=uids[3], flop_uids=uids[:1],
    )  # fmt: skip

    routers = {
        name.rpartition(".")[2] if routing == "dedr" else "joint": module
        for name, module in model.projector.mixture.named_modules()
        if isinstance(module, Router)
    }
    singles = list(batches_of_one(tmp_path, dump_dir, uids))
    recounted = slow_recount(model, routers, singles)
    found = {(u.router, u.modality): u.counts for u in result.usages}
    assert found.keys() == recounted.keys()
    for key, counts in found.items():
        assert counts.tolist() == recounted[key].tolist()
    assert result.utterances == 12

    strip = result.strip
    assert strip.uid == uids[3]
    assert strip.video.shape[1:] == (96, 96)
    assert len(strip.speech) == 640 * len(strip.video)
    alone = {(u.router, u.modality): u.counts for u in count_usage(routings(model, singles[3]))}
    for route in strip.routes:
        assert route.probs.sum(1) == pytest.approx(np.ones(len(route.probs)), abs=1e-5)
        assert (route.probs.argmax(1) == route.choices[:, 0]).all()
        assert np.bincount(route.choices[:, 1], minlength=4).tolist() == (
            alone[route.router, route.modality][1].tolist()
        )
        # Tokens cover the utterance.
        seconds = len(strip.video) / 25
        assert seconds <= len(route.choices) * route.token_seconds < seconds + 0.2
    assert set(result.gflops) == {"audio encoder", "video encoder", "projector", "LLM"}


@pytest.mark.parametrize("routing", ["dedr", "jejr"])
def test_phone_classes_are_those_of_the_tokens(experiment, dump_dir, tmp_path, routing):
    conf = {"routing": routing, "num_experts": 4, "hidden_size": 16}
    model = experiment(projector_conf=conf)
    uids = [line.split()[0] for line in (dump_dir / "text").read_text().splitlines()]
    # Tokens are of 3 audio or video frames: here 60 or 120 ms. After 0.36 s of silence phones of
    # 0.24 s follow without a gap. One utterance has none.
    rng = np.random.default_rng(0)
    starts = 0.36 + 0.24 * np.arange(30)
    alignments = {
        uid: Alignment(list(starts), list(starts + 0.24), list(rng.integers(0, 6, 30)))
        for uid in uids[:-1]
    }
    result = run_pass(
        tmp_path / "config.yaml", tmp_path / "model.pth", dump_dir,
        uids=uids, strip_uid=uids[0], flop_uids=[], phones=alignments,
    )  # fmt: skip
    found = {(u.router, u.modality): u for u in result.phone_usages}
    expected = {key: ([], []) for key in found}
    silence = CLASSES.index("silence")
    for uid, batch in zip(uids[:-1], batches_of_one(tmp_path, dump_dir, uids), strict=False):
        for router, modality, single in routings(model, batch):
            classes, weights = expected[router, modality]
            for t in range(len(single.indices)):
                middle = {"audio": 0.06, "video": 0.12}[modality] * (t + 0.5)
                after = middle - 0.36
                kind = alignments[uid].classes[int(after / 0.24)] if after > 0 else silence
                classes.append(kind)
                weights.append(torch.zeros(4).index_add(0, single.indices[t], single.weights[t]))
    assert found.keys() == {(u.router, u.modality) for u in result.usages}
    for key, (classes, weights) in expected.items():
        assert found[key].classes.tolist() == classes
        np.testing.assert_allclose(found[key].weights, torch.stack(weights), atol=1e-5)


def batches_of_one(directory, dump_dir, uids):
    from espnet2.train.dataset import ESPnetDataset

    from espnet_smop.inference import AVSRSpeech2Text

    speech2text = AVSRSpeech2Text(directory / "config.yaml", directory / "model.pth")
    data = ESPnetDataset(
        [
            (f"{dump_dir}/wav.scp", "speech", "sound"),
            (f"{dump_dir}/video.scp", "video", "video"),
        ],
        preprocess=speech2text.preprocess,
        float_dtype="float32",
    )
    for uid in uids:
        yield speech2text.collate([data[uid]])[1]


def test_a_dense_projector_has_no_usage(experiment, dump_dir, tmp_path):
    experiment(projector="mlp", projector_conf={"hidden_size": 16})
    uids = [line.split()[0] for line in (dump_dir / "text").read_text().splitlines()]
    result = run_pass(
        tmp_path / "config.yaml", tmp_path / "model.pth", dump_dir,
        uids=uids[:2], strip_uid=uids[0], flop_uids=[],
    )  # fmt: skip
    assert (result.usages, result.strip, result.gflops) == ([], None, {})


def test_the_mixtures_in_the_llm_are_counted_by_layer(experiment, model_args, dump_dir, tmp_path):
    conf = {**model_args().decoder_conf, "mome": {"num_experts": 5, "top_k": 2, "bottleneck": 3}}
    model = experiment(projector="mlp", projector_conf={"hidden_size": 16}, decoder_conf=conf)
    uids = [line.split()[0] for line in (dump_dir / "text").read_text().splitlines()]
    result = run_pass(
        tmp_path / "config.yaml", tmp_path / "model.pth", dump_dir,
        uids=uids, strip_uid=uids[0], flop_uids=uids[:1],
    )  # fmt: skip
    assert not result.usages
    assert [(u.router, u.modality) for u in result.llm_usages] == [
        ("layer 0", "avsr"), ("layer 1", "avsr"),
    ]  # fmt: skip

    inputs = {0: [], 1: []}
    for layer, mixture in enumerate(model.decoder.mome.layers):
        mixture.register_forward_hook(
            lambda module, args, output, seen=inputs[layer]: seen.append(args[0][0])
        )
    texts = dict(line.split(maxsplit=1) for line in (dump_dir / "text").read_text().splitlines())
    for uid, batch in zip(uids, batches_of_one(tmp_path, dump_dir, uids), strict=True):
        ids = torch.tensor([model.decoder.encode_text(texts[uid])])
        with torch.no_grad():
            model(**batch, text=ids, text_lengths=torch.tensor([ids.size(1)]))
    for layer, usage in enumerate(result.llm_usages):
        [router] = model.decoder.mome.layers[layer].routers.values()
        scores = torch.cat(inputs[layer]) @ router.gate.weight.detach().T
        chosen = scores.argsort(dim=1, descending=True)[:, :2]
        counts = [torch.bincount(column, minlength=5).tolist() for column in chosen.T]
        assert usage.counts.tolist() == counts


def test_lips_need_no_sound(experiment, dump_dir, tmp_path):
    conf = {"num_experts": 2, "hidden_size": 16}
    experiment(audio_frontend=None, audio_frontend_conf={}, projector_conf=conf)
    data = tmp_path / "data"
    data.mkdir()
    for name in ("text", "video.scp"):
        shutil.copy(dump_dir / name, data)
    uid = (data / "text").read_text().split()[0]
    result = run_pass(
        tmp_path / "config.yaml", tmp_path / "model.pth", data,
        uids=[uid], strip_uid=uid, flop_uids=[uid],
    )  # fmt: skip
    assert result.strip.speech is None and result.strip.video.shape[1:] == (96, 96)
    assert result.gflops.keys() == {"video encoder", "projector", "LLM"}


def test_parameters_by_hand(experiment, tmp_path):
    model = experiment(projector_conf={"routing": "dedr", "num_experts": 5, "hidden_size": 16})
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    counted = count_parameters(config, tmp_path / "skeletons")
    assert counted.total == sum(p.numel() for p in model.parameters())
    assert counted.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.encoders + counted.projector + counted.llm == counted.total
    # Stacks of 3 frames, 24 and 16 wide, to 32: weights, biases and LayerNorm of an expert.
    expert = {m: d * 16 + 16 + 16 * 32 + 32 + 2 * 32 for m, d in {"audio": 72, "video": 48}.items()}
    assert counted.total - counted.active == 3 * sum(expert.values())
    assert counted.projector == 5 * sum(expert.values()) + 5 * (72 + 48)
    assert counted.projector - counted.projector_active == 3 * sum(expert.values())


def test_operations_by_hand(experiment):
    conf = {"routing": "dedr", "num_experts": 5, "hidden_size": 16, "expert_layer_norm": False}
    model = experiment(projector_conf=conf)
    batch = {
        "speech": torch.randn(1, 16000), "speech_lengths": torch.tensor([16000]),
        "video": torch.randn(1, 25, 88, 88), "video_lengths": torch.tensor([25]),
        "text": torch.tensor([[5, 6, 7]]), "text_lengths": torch.tensor([3]),
    }  # fmt: skip
    flops = count_flops(model, batch)
    # 50 and 25 frames are 17 and 9 tokens; 2 of 5 experts and the router work on each.
    tokens = {"audio": (17, 72), "video": (9, 48)}
    by_hand = sum(2 * n * (2 * (d * 16 + 16 * 32) + 5 * d) for n, d in tokens.values())
    assert flops["projector"] == by_hand
    # The LLM: 17 + 2 and 9 + 2 media tokens with delimiters, BOS, prompt and text; only the text's
    # 3 tokens and the last of the prompt are turned into words.
    llm = model.decoder.llm
    prompt = len(model.decoder.tokenizer(model.decoder.prompt, add_special_tokens=False).input_ids)
    length = 1 + 19 + 11 + prompt + 3
    linear = sum(
        p.numel() for name, p in llm.model.layers.named_parameters() if name.endswith("weight")
        and p.dim() == 2
    )  # fmt: skip
    head = llm.get_output_embeddings().weight.numel()
    attention = 2 * 2 * length * length * llm.config.hidden_size * llm.config.num_hidden_layers
    assert flops["LLM"] == 2 * length * linear + 2 * 4 * head + attention


def test_operations_of_the_parts_are_all_there_are(experiment):
    # An encoder whose layers are fused runs by another method than forward.
    fusion = {"audio": "mmfuser", "video": "dci"}
    model = experiment(projector="mlp", projector_conf={"fusion": fusion})
    batch = {
        "speech": torch.randn(1, 16000), "speech_lengths": torch.tensor([16000]),
        "video": torch.randn(1, 25, 88, 88), "video_lengths": torch.tensor([25]),
        "text": torch.tensor([[5, 6, 7]]), "text_lengths": torch.tensor([3]),
    }  # fmt: skip
    flops = count_flops(model, batch)
    assert min(flops.values()) > 0
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**batch)
    assert sum(flops.values()) == counter.get_total_flops()
