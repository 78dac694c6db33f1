"""SMoP against golden numbers of the public code, and the projectors' promises."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from espnet_smop.checkpoint.llama_smop.names import copy_from, projector_weights
from espnet_smop.projector.dispatch import DISPATCHES
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.mlp import MLPProjector
from espnet_smop.projector.router import Router
from espnet_smop.projector.smop import SMoPProjector

GOLDEN = Path(__file__).parents[1] / "golden" / "smop_topk_moe.pt"


@pytest.fixture(scope="module")
def golden():
    return torch.load(GOLDEN, weights_only=True)


def golden_projector(golden, dispatch):
    projector = SMoPProjector(
        {"audio": 24},
        40,
        {"audio": 2},
        routing="jejr",
        num_experts=4,
        top_k=2,
        hidden_size=32,
        downsample={"audio": 1},
        dispatch=dispatch,
        load_balancing_weight=1.0,
        router_z_weight=0.0,
    )
    mixture = projector.mixture
    copy_from(golden["state_dict"], projector_weights(mixture.router, mixture.pool))
    return projector


@pytest.mark.parametrize("dispatch", ["auto", *DISPATCHES])
def test_golden(golden, dispatch):
    projector = golden_projector(golden, dispatch)
    x = golden["input"].clone().requires_grad_()
    out = projector({"audio": x}, {"audio": torch.full((3,), 17)})
    y = out.tokens["audio"]
    torch.testing.assert_close(y, golden["output"], atol=1e-5, rtol=1e-5)
    for name, value in (("loss_balance", "load_balancing_loss"), ("loss_z", "router_z_loss")):
        torch.testing.assert_close(out.stats[name], golden[value], atol=1e-5, rtol=1e-5)
    (y * golden["random_for_grad"]).sum().backward()
    close = dict(atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x.grad, golden["grad_input"], **close)
    for p in projector.parameters():
        p.data, p.grad = p.grad, None
    grads = projector_weights(projector.mixture.router, projector.mixture.pool)
    assert grads.keys() == golden["grad_params"].keys()
    for name, grad in golden["grad_params"].items():
        torch.testing.assert_close(grads[name], grad, **close)


@pytest.mark.parametrize("loss,weights", [("load_balancing", (1.0, 0.0)), ("router_z", (0.0, 1.0))])
def test_golden_gradients_of_auxiliary_losses(golden, loss, weights):
    projector = golden_projector(golden, "auto")
    projector.load_balancing_weight, projector.router_z_weight = weights
    x = golden["input"].clone().requires_grad_()
    projector({"audio": x}, {"audio": torch.full((3,), 17)}).aux_loss.backward()
    want = golden[f"grad_{loss}"]
    torch.testing.assert_close(x.grad, want["input"], atol=1e-4, rtol=1e-4)
    grad = projector.mixture.router.gate.weight.grad
    torch.testing.assert_close(grad, want["gate_weight"], atol=1e-4, rtol=1e-4)


ROUTING_NAMES = ["jejr", "jedr", "dedr"]


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def test_defaults_are_the_settings_of_published_checkpoints():
    assert defaults(SMoPProjector) == {
        "routing": "dedr",
        "num_experts": 3,
        "top_k": 2,
        "normalize_top_k": True,
        "hidden_size": 2048,
        "expert_layer_norm": True,
        "downsample": {"mode": "stack", "audio": 3, "video": 3, "remainder": "keep"},
        "per_rate": False,
        "fusion": None,
        "dropout": 0.0,
        "load_balancing_weight": 0.01,
        "router_z_weight": 0.001,
        "dispatch": "auto",
    }
    assert defaults(MLPProjector) == {
        "hidden_size": 2048,
        "layer_norm": False,
        "downsample": {"mode": "stack", "audio": 3, "video": 3, "remainder": "keep"},
        "per_rate": False,
        "fusion": None,
        "dropout": 0.0,
    }
    assert defaults(ExpertPool) == {"layer_norm": True, "activation": "relu"}
    pools = make(num_experts={"video": 1}).mixture.pools
    assert (pools["audio"].num_experts, pools["video"].num_experts) == (3, 1)


def test_experts_begin_like_torchs_linear():
    torch.manual_seed(0)
    pool = ExpertPool(input_size=16, hidden_size=64, output_size=400, num_experts=5)
    for weight, width in ((pool.w1, 16), (pool.b1, 16), (pool.w2, 64), (pool.b2, 64)):
        bound = width**-0.5
        assert 0.95 * bound < weight.max() <= bound
        assert -bound <= weight.min() < -0.95 * bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_a_token_goes_through_k_experts():
    """Per modality of width D: a router of 4 · D, and 2 of 4 experts."""
    projector = make(num_experts=4, downsample={"audio": 1, "video": 1})
    expert = {d: 12 * d + 12 + 12 * 10 + 10 + 2 * 10 for d in (8, 16)}
    assert projector.num_active_parameters() == sum(4 * d + 2 * expert[d] for d in (8, 16))
    audio = make(("audio",), num_experts=4, downsample={"audio": 1})
    assert audio.num_active_parameters() == 4 * 8 + 2 * expert[8]
    one = make(num_experts=1, downsample={"audio": 1, "video": 1})
    assert one.num_active_parameters() == expert[8] + expert[16]
    assert one.num_active_parameters() == sum(p.numel() for p in one.parameters())


def test_tokens_at_the_rates_of_a_view():
    frames = torch.tensor([[7, 12]])
    rates = {"audio": [2, 4], "video": [1, 3]}
    several = make(downsample={**rates, "mode": "avgpool"})
    assert several.num_tokens_at("audio", frames, {"audio": 4, "video": 1}).tolist() == [[2, 3]]
    assert make().num_tokens_at("audio", frames, {}).tolist() == [[3, 4]]


def make(modalities=("audio", "video"), **conf):
    torch.manual_seed(0)
    sizes = {m: {"audio": 8, "video": 16}[m] for m in modalities}
    conf = {"hidden_size": 12, **conf}
    projector = SMoPProjector(sizes, 10, {"audio": 4, "video": 2}, **conf).double()
    for name, p in projector.named_parameters():
        if "gate" in name or "scale" in name:
            torch.nn.init.normal_(p)  # gates of fusion start at 0, which would hide it
    return projector


def features(lengths: dict[str, list[int]], padding: int, seed=0):
    """Random features and layers; beyond the lengths they are NaN."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for m, ls in lengths.items():
        shape = (len(ls), max(ls) + padding, {"audio": 8, "video": 16}[m])
        layers[m] = [
            torch.full(shape, torch.nan).double() for _ in range({"audio": 5, "video": 3}[m])
        ]
        for b, length in enumerate(ls):
            for layer in layers[m]:
                own = torch.Generator().manual_seed(
                    int(torch.randint(2**31, (), generator=generator))
                )
                layer[b, :length] = torch.randn(length, shape[2], generator=own).double()
    return (
        {m: x[-1] for m, x in layers.items()},
        {m: torch.tensor(x) for m, x in lengths.items()},
        layers,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), min_size=1, max_size=3),
    padding=st.integers(0, 5),
    routing=st.sampled_from(ROUTING_NAMES),
    mode=st.sampled_from(["stack", "avgpool"]),
    remainder=st.sampled_from(["keep", "drop"]),
    rates=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    fusion=st.tuples(*[st.sampled_from([None, "dci", "mmfuser"])] * 2),
    how=st.sampled_from(["auto", *DISPATCHES]),
    modalities=st.sampled_from([("audio",), ("video",), ("audio", "video")]),
)
def test_batch_invariance(
    lengths, padding, routing, mode, remainder, rates, fusion, how, modalities
):
    """Tokens of an utterance are the same alone, and the losses do not count padding."""
    projector = make(
        modalities,
        routing=routing,
        dispatch=how,
        downsample={"mode": mode, "audio": rates[0], "video": rates[1], "remainder": remainder},
        fusion={"audio": fusion[0], "video": fusion[1]},
    )
    by_modality = dict(zip(("audio", "video"), map(list, zip(*lengths, strict=True)), strict=True))
    x, x_lengths, layers = features({m: by_modality[m] for m in modalities}, padding)
    batch = projector(x, x_lengths, layers)
    batch.aux_loss.backward(retain_graph=True)
    sum(t.sum() for t in batch.tokens.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in projector.parameters() if p.grad is not None)
    for b in range(len(lengths)):
        cut = {m: slice(0, int(x_lengths[m][b])) for m in modalities}
        alone = projector(
            {m: x[m][b : b + 1, cut[m]] for m in modalities},
            {m: x_lengths[m][b : b + 1] for m in modalities},
            {m: [layer[b : b + 1, cut[m]] for layer in layers[m]] for m in modalities},
        )
        for m in modalities:
            n = int(alone.lengths[m])
            assert n == int(batch.lengths[m][b])
            torch.testing.assert_close(batch.tokens[m][b, :n], alone.tokens[m][0, :n])
            assert not batch.tokens[m][b, n:].any()
    shorter, _, _ = features({m: by_modality[m] for m in modalities}, 0)
    _, _, layers = features({m: by_modality[m] for m in modalities}, 0)
    unpadded = projector(shorter, x_lengths, layers)
    torch.testing.assert_close(batch.aux_loss, unpadded.aux_loss)
    torch.testing.assert_close(batch.stats, unpadded.stats)


def forward(projector, modalities=("audio", "video"), frames=24):
    x, lengths, layers = features({m: [frames, frames // 2] for m in modalities}, 0)
    return projector(x, lengths, layers)


def count(projector, kind):
    return sum(isinstance(m, kind) for m in projector.modules())


@pytest.mark.parametrize(
    "routing,routers,pools,linears", [("jejr", 1, 1, 1), ("jedr", 2, 1, 1), ("dedr", 2, 2, 0)]
)
def test_routings_are_composed_as_in_the_paper(routing, routers, pools, linears):
    projector = make(routing=routing)
    assert count(projector, Router) == routers
    assert count(projector, ExpertPool) == pools
    # one more linear layer compensates unequal widths, and each router has one
    assert count(projector, torch.nn.Linear) == linears + routers
    same_width = make(routing=routing, downsample={"audio": 2, "video": 1})
    assert count(same_width, torch.nn.Linear) == routers


def test_joint_router_treats_tokens_of_both_modalities_alike():
    projector = make(routing="jejr", downsample={"audio": 2, "video": 1})
    x = torch.randn(2, 10, 8).double()
    out = projector(
        {"audio": x, "video": x.reshape(2, 5, 16)},
        {"audio": torch.tensor([10, 6]), "video": torch.tensor([5, 3])},
    )
    torch.testing.assert_close(out.tokens["audio"], out.tokens["video"])


@pytest.mark.parametrize("routing", ROUTING_NAMES)
def test_losses_and_statistics_by_router_and_modality(routing):
    projector = make(routing=routing, load_balancing_weight=0.5, router_z_weight=0.25).train()
    out = forward(projector)
    want = 0.5 * out.stats["loss_balance"] + 0.25 * out.stats["loss_z"]
    torch.testing.assert_close(out.aux_loss.detach(), want)
    for modality in ("audio", "video"):
        router = "joint" if routing == "jejr" else modality
        for choice in ("first", "second"):
            names = [f"router_{router}/{modality}_{choice}_{e}" for e in range(3)]
            assert sum(out.stats[name] for name in names) == pytest.approx(1)
    assert len(out.stats) == 2 + 2 * 2 * 3
    assert all(v.ndim == 0 and not v.requires_grad for v in out.stats.values())


@pytest.mark.parametrize("routing", ROUTING_NAMES)
@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality_is_one_router_and_one_pool(routing, modality):
    projector = make((modality,), routing=routing, num_experts=4)
    assert (count(projector, Router), count(projector, ExpertPool)) == (1, 1)
    assert list(forward(projector, (modality,)).tokens) == [modality]


@pytest.mark.parametrize("routing", ROUTING_NAMES)
def test_one_expert_is_a_plain_mlp(routing):
    projector = make(routing=routing, num_experts=1, expert_layer_norm=False)
    assert count(projector, Router) == 0
    out = forward(projector)
    assert out.aux_loss == 0
    assert list(out.stats) == ["loss_balance", "loss_z"]


def test_mlp_projector_is_torchs_mlp():
    torch.manual_seed(0)
    projector = MLPProjector({"video": 4}, 10, {"video": 2}, hidden_size=12)
    pool = projector.mixture.pools["video"]
    mlp = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.ReLU(), torch.nn.Linear(12, 10))
    with torch.no_grad():
        for p, own in zip(mlp.parameters(), (pool.w1, pool.b1, pool.w2, pool.b2), strict=True):
            p.copy_(own[0])
    x = torch.randn(2, 9, 4)
    out = projector({"video": x}, {"video": torch.tensor([9, 9])})
    torch.testing.assert_close(out.tokens["video"], mlp(x.reshape(2, 3, 12)))


TABLE_1 = {
    "llama-avsr": (MLPProjector, {}),
    "dci": (MLPProjector, {"fusion": {"audio": "dci", "video": "dci"}}),
    "mmfuser": (MLPProjector, {"fusion": {"audio": "mmfuser", "video": "mmfuser"}}),
    "smop-4-jejr": (SMoPProjector, {"routing": "jejr", "num_experts": 4}),
    "smop-4-jedr": (SMoPProjector, {"routing": "jedr", "num_experts": 4}),
    "smop-3-dedr": (SMoPProjector, {"routing": "dedr", "num_experts": 3}),
    "smop-4-v-dci-a": (
        SMoPProjector,
        {"num_experts": {"audio": 1, "video": 4}, "fusion": {"audio": "dci"}},
    ),
    "smop-4-v-mmfuser-a": (
        SMoPProjector,
        {"num_experts": {"audio": 1, "video": 4}, "fusion": {"audio": "mmfuser"}},
    ),
}


@pytest.mark.parametrize("system", TABLE_1)
def test_the_systems_of_table_1_train_by_configuration_alone(system):
    build, conf = TABLE_1[system]
    projector = build(
        {"audio": 8, "video": 16}, 10, {"audio": 4, "video": 2}, hidden_size=12, **conf
    )
    assert projector.needs_layers == {m for m, kind in conf.get("fusion", {}).items() if kind}
    out = forward(projector.train())
    assert out.tokens["audio"].shape == (2, 8, 10)
    (sum(t.square().sum() for t in out.tokens.values()) + out.aux_loss).backward()
    assert all(p.grad is not None for p in projector.parameters())


def test_encoders_in_bfloat16_do_not_change_the_precision_of_training():
    projector = make(fusion={"audio": "mmfuser"}).float()
    x, lengths, layers = features({"audio": [12], "video": [6]}, 0)
    x = {m: t.bfloat16() for m, t in x.items()}
    layers = {m: [t.bfloat16() for t in ts] for m, ts in layers.items()}
    assert projector(x, lengths, layers).tokens["audio"].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert projector(x, lengths, layers).tokens["audio"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "conf,message",
    [
        ({"routing": "jerj"}, "routing is 'jerj', expected one of: jejr, jedr, dedr"),
        ({"num_experts": 0}, "num_experts is 0, expected a whole number"),
        ({"hidden_size": 0}, "hidden_size is 0, expected a whole number"),
        (
            {"num_experts": {"vidoe": 4}},
            r"num_experts has an unknown key 'vidoe'.*Did you mean 'video'",
        ),
        ({"num_experts": 2, "top_k": 3}, "top_k is 3, but there are 2 experts"),
        ({"routing": "jedr", "num_experts": {"audio": 4}}, "joint experts are one pool"),
        ({"downsample": {"mode": "max"}}, "downsample.mode is 'max', expected one of: stack, avg"),
        (
            {"downsample": {"rate": 3}},
            "downsample has an unknown key 'rate'. Known: audio, mode, remainder, video",
        ),
        ({"downsample": 3}, "downsample is 3, expected a dictionary"),
        ({"downsample": {"audio": [4, 4]}}, r"downsample.audio is \[4, 4\], expected different"),
        ({"downsample": {"audio": []}}, r"downsample.audio is \[\], expected different numbers"),
        ({"downsample": {"video": [2, 0]}}, "downsample.video is 0, expected a whole number"),
        ({"downsample": {"video": [2, 5]}}, "different widths at the rates 2 and 5: set per_rate"),
        ({"per_rate": True}, "per_rate is true, but downsample has no list of rates"),
        ({"fusion": {"audio": "dcl"}}, "fusion.audio is 'dcl', expected one of: null, dci, mmfu"),
        ({"dispatch": "fast"}, "dispatch is 'fast', expected one of: auto, eager"),
    ],
)
def test_errors_of_configuration(conf, message):
    with pytest.raises(ValueError, match=message):
        make(**conf)


def test_errors_of_use():
    with pytest.raises(ValueError, match="needs a modality"):
        SMoPProjector({}, 10, {})
    with pytest.raises(ValueError, match="modality is 'lips', expected one of: audio, video"):
        SMoPProjector({"lips": 8}, 10, {})
    with pytest.raises(ValueError, match=r"fusion.audio is dci.*set it to null"):
        SMoPProjector({"audio": 8}, 10, {"audio": 0}, fusion={"audio": "dci"})
    projector = make(fusion={"audio": "dci"})
    x, lengths, _ = features({"audio": [4], "video": [4]}, 0)
    with pytest.raises(ValueError, match="needs the hidden states of every encoder layer"):
        projector(x, lengths)
    with pytest.raises(ValueError, match="modality is 'audio', expected one of: video"):
        make(("video",))(x, lengths)


def _one_rank(rank, store, result):
    torch.set_num_threads(1)
    # Ranks meet in a file: a port that is free now may be taken when they come to listen there.
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    projector, x, lengths = _projector_and_batch()
    mine = slice(0, 1) if rank == 0 else slice(1, 3)
    model = DistributedDataParallel(projector)  # kept: it is the model that sums gradients
    out = model({m: t[mine] for m, t in x.items()}, {m: t[mine] for m, t in lengths.items()})
    # ESPnet weights a rank's loss by its targets over the mean of all ranks'.
    loss = out.aux_loss + 0 * sum(t.sum() for t in out.tokens.values())
    (loss * (0.5, 1.5)[rank]).backward()
    grads = {n: p.grad.tolist() for n, p in projector.named_parameters() if "gate" in n}
    Path(result).write_text(json.dumps([out.aux_loss.item(), grads]))
    dist.destroy_process_group()


def _projector_and_batch():
    projector = make(
        routing="jedr", load_balancing_weight=1.0, router_z_weight=0.5, dispatch="eager"
    )
    x, lengths, _ = features({"audio": [12, 5, 9], "video": [6, 3, 4]}, 2)
    return projector.train(), x, lengths


def test_losses_over_ranks_are_those_of_the_global_batch(tmp_path):
    projector, x, lengths = _projector_and_batch()
    aux_loss = projector(x, lengths).aux_loss
    aux_loss.backward()
    store = tmp_path / "store"
    # New processes: once this one has run a backward pass, autograd refuses to do so in a fork
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), store, tmp_path / str(rank)])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    for rank in range(2):
        got, grads = json.loads((tmp_path / str(rank)).read_text())
        assert got == pytest.approx(aux_loss.item(), rel=1e-6)
        assert len(grads) == 2
        for name, grad in grads.items():
            want = projector.get_parameter(name).grad
            torch.testing.assert_close(torch.tensor(grad).to(want), want)


@pytest.mark.parametrize("how", DISPATCHES)
def test_features_of_a_frozen_encoder_need_no_gradient(how):
    projector = make(dispatch=how)
    x, lengths, _ = features({"audio": [12], "video": [6]}, 0)
    wanted = {m: t.clone().requires_grad_() for m, t in x.items()}
    grads = []
    for batch in (x, wanted):
        projector.zero_grad()
        sum(t.square().sum() for t in projector(batch, lengths).tokens.values()).backward()
        grads.append({name: p.grad for name, p in projector.named_parameters()})
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("projector", [SMoPProjector, MLPProjector])
def test_dropout_acts_in_training_alone(projector):
    """Half of the inputs are zero and the others doubled: the mean over draws is the same."""
    conf = {"hidden_size": 8, "downsample": {"audio": 1}}
    torch.manual_seed(0)
    with_dropout = projector({"audio": 6}, 5, {"audio": 1}, dropout=0.5, **conf)
    torch.manual_seed(0)
    without = projector({"audio": 6}, 5, {"audio": 1}, **conf)
    x, lengths = {"audio": torch.randn(2, 4, 6)}, {"audio": torch.tensor([4, 2])}
    plain = without(x, lengths).tokens["audio"]
    assert torch.equal(with_dropout.eval()(x, lengths).tokens["audio"], plain)
    draws = [with_dropout.train()(x, lengths).tokens["audio"] for _ in range(2)]
    assert not torch.equal(*draws)
    seen = []
    with_dropout.mixture.register_forward_pre_hook(lambda _, args: seen.append(args[0]["audio"]))
    with_dropout(x, lengths)
    inside = torch.cat([x["audio"][0], x["audio"][1, :2]])
    seen = seen[0].unflatten(0, (2, 4))
    seen = torch.cat([seen[0], seen[1, :2]])
    assert set((seen / inside).round(decimals=4).unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("routing", ["jejr", "dedr"])
def test_tokens_begin_at_the_scale_asked_for(routing, layer_norm):
    torch.manual_seed(0)
    projector = SMoPProjector({"audio": 48, "video": 48}, 64, {"audio": 2, "video": 2},
                              routing=routing, expert_layer_norm=layer_norm, hidden_size=256,
                              downsample={"audio": 1, "video": 1})  # fmt: skip
    projector.init_output_rms(torch.tensor(0.05))
    features = {"audio": torch.randn(2, 40, 48), "video": torch.randn(2, 40, 48)}
    with torch.no_grad():
        tokens = projector(features, {m: torch.full((2,), 40) for m in features}).tokens
    for y in tokens.values():
        # Two experts' independent tokens average to somewhat shorter ones
        assert 0.025 < float(y.square().mean().sqrt()) < 0.06


def test_an_untrained_pool_without_a_layer_norm_is_scaled_by_its_own_variance():
    """Linear, ReLU and Linear leave 1/18 of a unit variance; the width averages the rest out."""
    torch.manual_seed(0)
    pool = ExpertPool(
        input_size=512, hidden_size=4096, output_size=64, num_experts=1, layer_norm=False
    )
    before = pool.w2.detach().clone(), pool.b2.detach().clone()
    pool.init_output_rms(torch.tensor(0.5))
    for now, then in zip((pool.w2, pool.b2), before, strict=True):
        torch.testing.assert_close(now, then * 0.5 * (3 * 2 * 3) ** 0.5)
    y = pool.w2[0] @ (pool.w1[0] @ torch.randn(512, 200) + pool.b1[0, :, None]).relu()
    assert (y + pool.b2[0, :, None]).square().mean().sqrt().item() == pytest.approx(0.5, rel=0.1)


if __name__ == "__main__":
    _one_rank(int(sys.argv[1]), *sys.argv[2:])
