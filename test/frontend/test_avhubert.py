import json
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.fairseq import convert, read_checkpoint
from espnet_smop.frontend.avhubert import (
    AVHuBERTConfig,
    AVHuBERTFrontend,
    AVHuBERTModel,
    save,
)
from espnet_smop.frontend.filterbank import stacked_filterbanks

GOLDEN = Path(__file__).parents[1] / "golden"


def tiny_config(**changes):
    sizes = {
        "encoder_layers": 2,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_attention_heads": 4,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "resnet_stem_channels": 4,
        "resnet_stem_stride": 4,
        "resnet_channels": [8, 8, 12, 16],
        "resnet_blocks": [1, 1, 1, 1],
    }
    return AVHuBERTConfig(**sizes | changes)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The golden checkpoint, converted."""
    path = tmp_path_factory.mktemp("converted") / "avhubert tiny"
    save(*convert(read_checkpoint(GOLDEN / "avhubert_tiny_fairseq.pt")), path)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny")
    model = AVHuBERTModel(tiny_config())
    # BatchNorm statistics other than the initial ones.
    model.train()(video=torch.randn(2, 6, 88, 88))
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "avhubert_tiny_expected.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    tensors["video"] = tensors["video"].float()[:, 0]
    return tensors


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_parity_with_the_published_code(published, golden):
    frontend = AVHuBERTFrontend(str(published), dtype="float32")
    layers, lengths = frontend.layers(golden["video"], torch.tensor([12, 12]))
    assert lengths.tolist() == [12, 12] and len(layers) == frontend.num_layers + 1 == 3
    close(layers[0], golden["video_only.post_extract_proj"] + golden["video_only.pos_conv"])
    close(layers[1], golden["video_only.layers"][0])
    close(layers[2], golden["video_only.out"])
    features, _ = frontend(golden["video"], torch.tensor([12, 12]))
    assert torch.equal(features, layers[-1])
    assert frontend.output_size() == 64 and frontend.frame_rate == 25


def test_parity_with_the_published_code_under_a_mask(published, golden):
    # The published stem sees whatever lies beyond an utterance's end; so does the bare model.
    model = AVHuBERTModel.from_pretrained(published)
    lengths = (~golden["padding_mask"]).sum(1)
    with torch.no_grad():
        _, second, out = model(video=golden["video"], lengths=lengths, all_layers=True)
    inside = ~golden["padding_mask"]
    close(second[inside], golden["video_only_masked.layers"][0][inside])
    close(out[inside], golden["video_only_masked.out"][inside])


def test_parity_of_the_resnet(published, golden):
    model = AVHuBERTModel.from_pretrained(published)
    with torch.no_grad():
        features = model.feature_extractor_video.resnet(
            golden["video"], torch.ones(2, 12, dtype=torch.bool)
        )
    close(features.transpose(1, 2), golden["video_only.resnet_out"])


@pytest.mark.parametrize("name", ["large_vox_iter5", "base_vox_iter5"])
def test_names_and_shapes_of_published_models(name):
    published = json.loads((GOLDEN / "avhubert_large_keys.json").read_text())[name]
    with torch.device("meta"):
        state = {k: torch.empty(shape) for k, shape in published["state_dict"].items()}
    config, weights = convert({"cfg": {"model": published["config"]}, "model": state})
    heads = {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"}
    assert set(weights) == set(published["state_dict"]) - heads
    with torch.device("meta"):
        model = AVHuBERTModel(config)
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    assert shapes == {k: v for k, v in published["state_dict"].items() if k not in heads}
    if name == "large_vox_iter5":
        assert config == AVHuBERTConfig()


@pytest.mark.parametrize("modality", ["video", "audio", "audiovisual"])
def test_batch_invariance(tiny, modality):
    frontend = AVHuBERTFrontend(str(tiny), modality=modality, dtype="float32")
    lengths = torch.tensor([9, 1, 5, 8, 2])
    # Padding that is not zero must not matter either.
    video, audio = torch.randn(5, 9, 88, 88), torch.randn(5, 9, 104)
    given = {"video": (video,), "audio": (audio,), "audiovisual": (video, audio)}[modality]

    def run(tensors, n):
        return frontend.layers(tensors if len(tensors) == 2 else tensors[0], n)

    batched, frames = run(given, lengths)
    assert torch.equal(frames, lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, _ = run(tuple(x[i : i + 1, :n] for x in given), lengths[i : i + 1])
        for a, b in zip(alone, batched, strict=True):
            close(a[0], b[i, :n])
            assert not b[i, n:].any()


def test_audio_frontend_takes_waveforms(tiny):
    frontend = AVHuBERTFrontend(str(tiny), modality="audio", dtype="float32")
    speech, lengths = torch.randn(2, 16000), torch.tensor([16000, 7000])
    features, frames = frontend(speech, lengths)
    assert frames.tolist() == [25, 11] and features.shape == (2, 25, 32)
    stacked, _ = stacked_filterbanks(speech, lengths)
    close(features, frontend(stacked, frames)[0])


def test_modalities_differ_and_combine(tiny):
    video, audio = torch.randn(1, 4, 88, 88), torch.randn(1, 4, 104)
    model = AVHuBERTModel.from_pretrained(tiny)
    with torch.no_grad():
        (v,), (a,), (av,) = (
            model(**x)
            for x in ({"video": video}, {"audio": audio}, {"video": video, "audio": audio})
        )
    assert not torch.allclose(v, a) and not torch.allclose(v, av) and not torch.allclose(a, av)
    with pytest.raises(ValueError, match="neither"):
        model()


def test_training_does_not_see_padding():
    torch.manual_seed(0)
    model = AVHuBERTModel(tiny_config(dropout=0.0, attention_dropout=0.0)).train()
    video, lengths = torch.zeros(2, 9, 88, 88), torch.tensor([9, 4])
    video[0], video[1, :4] = torch.randn(9, 88, 88), torch.randn(4, 88, 88)
    (short,) = model(video=video, lengths=lengths)
    statistics = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    short[0].sum().backward()
    assert model.feature_extractor_video.resnet.frontend3D[0].weight.grad.any()
    other = AVHuBERTModel(model.config).train()
    other.load_state_dict(
        {k: v for k, v in model.state_dict().items() if "running" not in k}, strict=False
    )
    padded = torch.cat([video, torch.zeros(2, 5, 88, 88)], dim=1)
    (long,) = other(video=padded, lengths=lengths)
    close(long[0, :9], short[0])
    for name, value in other.state_dict().items():
        if "running" in name:
            close(value, statistics[name])


def test_save_and_load(tmp_path):
    model = AVHuBERTModel(tiny_config(resnet_relu_type="relu"))
    model.save_pretrained(tmp_path / "a b")
    loaded = AVHuBERTModel.from_pretrained(tmp_path / "a b")
    assert loaded.config == model.config
    state = loaded.state_dict()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert sorted(p.name for p in (tmp_path / "a b").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_interrupted_save_is_not_taken_for_a_model(tmp_path, monkeypatch):
    model = AVHuBERTModel(tiny_config())
    model.save_pretrained(tmp_path)

    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        model.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"config\.json"):
        AVHuBERTModel.from_pretrained(tmp_path)


def test_weights_that_do_not_fit_are_listed(tmp_path):
    AVHuBERTModel(tiny_config()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["encoder_layers"] = 3
    config["audio_feat_dim"] = 26
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match=r"layers\.2\.fc1.*audio\.proj\.weight \(32, 104\)"):
        AVHuBERTFrontend(str(tmp_path))


def test_frozen_without_lora(tiny):
    frontend = AVHuBERTFrontend(str(tiny), dtype="float32").train()
    before = {k: v.clone() for k, v in frontend.state_dict().items()}
    features, _ = frontend(torch.randn(2, 4, 88, 88), torch.tensor([4, 3]))
    assert not features.requires_grad
    assert not any(p.requires_grad for p in frontend.parameters())
    assert all(torch.equal(before[k], v) for k, v in frontend.state_dict().items())


def test_lora_trains_adapters_only(tiny):
    batch = torch.randn(2, 4, 88, 88), torch.tensor([4, 3])
    plain = AVHuBERTFrontend(str(tiny), dtype="float32")
    frontend = AVHuBERTFrontend(str(tiny), dtype="float32", lora={"r": 2, "alpha": 4}).train()
    assert frontend.fingerprints() == plain.fingerprints()
    close(frontend(*batch)[0], plain(*batch)[0])
    trained = {n: p for n, p in frontend.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2 and all("lora_" in n for n in trained)
    statistics = {k: v.clone() for k, v in frontend.state_dict().items() if "running" in k}
    frontend(*batch)[0].square().sum().backward()
    assert {n for n, p in frontend.named_parameters() if p.grad is not None} == set(trained)
    state = frontend.state_dict()
    assert all(torch.equal(state[k], v) for k, v in statistics.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_close_to_float32(tiny, dtype, autocast):
    batch = torch.randn(2, 6, 88, 88), torch.tensor([6, 4])
    full = AVHuBERTFrontend(str(tiny), dtype="float32")(*batch)[0]
    frontend = AVHuBERTFrontend(str(tiny), dtype=dtype, lora={"r": 2})
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = frontend(*batch)[0]
    similarity = torch.cosine_similarity(full.flatten(), found.float().flatten(), dim=0)
    assert similarity > 0.999


def test_padding_is_not_computed(tiny):
    model = AVHuBERTModel.from_pretrained(tiny)
    lengths = torch.tensor([9, 1, 5])
    rows = {}

    video = model.feature_extractor_video.resnet
    video.frontend3D[1].register_forward_pre_hook(
        lambda _, args: rows.update(stem=rows.get("stem", 0) + len(args[0]))
    )
    for layer in model.encoder.layers:
        layer.fc1.register_forward_pre_hook(
            lambda _, args: rows.update(layer=args[0].shape[:-1].numel())
        )
    with torch.no_grad():
        model(video=torch.randn(3, 9, 88, 88), lengths=lengths)
    assert rows == {"stem": 15, "layer": 15}


def test_portions_of_frames_give_the_same_bits(tiny, monkeypatch):
    model = AVHuBERTModel.from_pretrained(tiny)
    video, lengths = torch.randn(2, 7, 88, 88), torch.tensor([7, 4])
    with torch.no_grad():
        (whole,) = model(video=video, lengths=lengths)
        monkeypatch.setattr("espnet_smop.frontend.resnet._FRAMES_AT_ONCE", 3)
        (portions,) = model(video=video, lengths=lengths)
    assert torch.equal(whole, portions)


def test_any_frames_may_be_real(tiny):
    resnet = AVHuBERTModel.from_pretrained(tiny).feature_extractor_video.resnet
    video = torch.randn(3, 6, 88, 88)
    inside = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).bool()
    with torch.no_grad():
        every = resnet(video, torch.ones_like(inside))
        close(resnet(video, inside), torch.where(inside[..., None], every, 0.0))
        assert not resnet(video, torch.zeros_like(inside)).any()
