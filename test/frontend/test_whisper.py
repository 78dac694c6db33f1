import pytest
import torch
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_smop.base_model import BaseModelError
from espnet_smop.frontend.whisper import WhisperFrontend, encode, load_encoder


def tiny_config(**changes):
    torch.manual_seed(0)
    return WhisperConfig(
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **changes,
    )


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    path = tmp_path_factory.mktemp("base models") / "tiny whisper"
    model = WhisperModel(tiny_config())
    model.save_pretrained(path)
    return path, model.eval()


def padded(waves, fill=0.0):
    batch = torch.full((len(waves), max(len(w) for w in waves)), fill)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    return batch, torch.tensor([len(w) for w in waves])


def hugging_face_hidden_states(encoder, waves):
    mel = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)(
        [w.numpy() for w in waves], sampling_rate=16000, return_tensors="pt"
    ).input_features
    with torch.no_grad():
        return encoder(mel, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("num_mels", [80, 128])
def test_30s_equals_hugging_face_encoder(tmp_path, num_mels):
    model = WhisperModel(tiny_config(num_mel_bins=num_mels)).eval()
    model.save_pretrained(tmp_path)
    waves = [torch.randn(16000), torch.randn(9000)]
    expected = hugging_face_hidden_states(model.encoder, waves)
    frontend = WhisperFrontend(str(tmp_path), padding="30s", dtype="float32")
    layers, lengths = frontend.layers(*padded(waves))
    assert lengths.tolist() == [50, 28]
    assert len(layers) == len(expected) == frontend.num_layers + 1
    for found, wanted in zip(layers, expected, strict=True):
        torch.testing.assert_close(found[0], wanted[0, :50], atol=1e-4, rtol=0)
        torch.testing.assert_close(found[1, :28], wanted[1, :28], atol=1e-4, rtol=0)
        assert not found[1, 28:].any()


def test_longest_at_full_length_equals_hugging_face_encoder(whisper):
    path, model = whisper
    waves = [torch.randn(480000)]
    expected = hugging_face_hidden_states(model.encoder, waves)
    frontend = WhisperFrontend(str(path), padding="longest", dtype="float32")
    layers, lengths = frontend.layers(*padded(waves))
    assert lengths.tolist() == [1500]
    for found, wanted in zip(layers, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_longest_sees_what_30s_sees_before_attention(whisper):
    path, _ = whisper
    batch = padded([torch.randn(16123), torch.randn(5000)])
    short, _ = WhisperFrontend(str(path), dtype="float32").layers(*batch)
    full, _ = WhisperFrontend(str(path), padding="30s", dtype="float32").layers(*batch)
    torch.testing.assert_close(short[0], full[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["longest", "30s"])
def test_batch_invariance(tmp_path, padding):
    WhisperEncoder(tiny_config(max_source_positions=100)).save_pretrained(tmp_path)
    frontend = WhisperFrontend(str(tmp_path), padding=padding, dtype="float32")
    lengths = [*torch.randint(300, 32001, (6,)).tolist(), 32000, 31990, 31700]
    waves = [torch.randn(n) for n in lengths]
    batched, frames = frontend.layers(*padded(waves, fill=3.0))
    for i, wave in enumerate(waves):
        alone, (n,) = frontend.layers(*padded([wave]))
        assert n == frames[i]
        for a, b in zip(alone, batched, strict=True):
            torch.testing.assert_close(a[0], b[i, :n], atol=1e-4, rtol=0)
            assert not b[i, n:].any()


def test_forward_is_the_last_layer(whisper):
    frontend = WhisperFrontend(str(whisper[0]), dtype="float32")
    batch = padded([torch.randn(9000), torch.randn(3000)])
    features, lengths = frontend(*batch)
    layers, again = frontend.layers(*batch)
    assert torch.equal(features, layers[-1]) and torch.equal(lengths, again)
    assert features.shape == (2, 28, frontend.output_size())
    assert frontend.frame_rate == 50


@pytest.mark.parametrize("cls", [WhisperModel, WhisperForConditionalGeneration, WhisperEncoder])
@pytest.mark.parametrize("shard", ["1GB", "30kB"])
def test_loads_the_encoder_of_any_saved_whisper(tmp_path, cls, shard):
    model = cls(tiny_config())
    model.save_pretrained(tmp_path, max_shard_size=shard)
    wanted = model if cls is WhisperEncoder else model.get_encoder()
    encoder = load_encoder(str(tmp_path))
    state = encoder.state_dict()
    assert state.keys() == wanted.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in wanted.state_dict().items())


def test_missing_weights_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    WhisperModel(tiny_config()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layers.1.fc1.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BaseModelError, match=r"layers\.1\.fc1\.bias"):
        load_encoder(str(tmp_path))


def test_number_of_frames(whisper):
    samples = torch.tensor([1, 319, 320, 639, 640, 16000, 480000])
    exact = WhisperFrontend(str(whisper[0]), dtype="float32")
    assert exact.num_frames(samples).tolist() == [1, 1, 1, 1, 2, 50, 1500]


def test_too_long_is_refused_and_chunks_are_joined(tmp_path):
    WhisperEncoder(tiny_config(max_source_positions=100)).save_pretrained(tmp_path)
    waves = [torch.randn(50000), torch.randn(32000), torch.randn(32100)]
    frontend = WhisperFrontend(str(tmp_path), dtype="float32")
    with pytest.raises(ValueError, match="chunk_seconds"):
        frontend(*padded(waves))
    chunked = WhisperFrontend(str(tmp_path), dtype="float32", chunk_seconds=2.0)
    features, lengths = chunked(*padded(waves))
    assert lengths.tolist() == [156, 100, 100]
    parts = [frontend(*padded([w]))[0][0] for w in (waves[0][:32000], waves[0][32000:])]
    torch.testing.assert_close(features[0], torch.cat(parts), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        features[1, :100], frontend(*padded([waves[1]]))[0][0], atol=1e-4, rtol=0
    )
    with pytest.raises(ValueError, match="chunk_seconds"):
        WhisperFrontend(str(tmp_path), chunk_seconds=2.5)


def test_frozen_without_lora(whisper):
    frontend = WhisperFrontend(str(whisper[0]), dtype="float32").train()
    features, _ = frontend(*padded([torch.randn(3000)]))
    assert not features.requires_grad
    assert not any(p.requires_grad for p in frontend.parameters())
    assert not any(m.training for m in frontend.encoder.modules())


def test_lora_trains_adapters_only(whisper):
    batch = padded([torch.randn(6000), torch.randn(3000)])
    plain = WhisperFrontend(str(whisper[0]), dtype="float32")
    frontend = WhisperFrontend(str(whisper[0]), dtype="bfloat16", lora={"r": 4, "alpha": 8})
    assert frontend.fingerprints() == plain.fingerprints()
    trained = {n: p for n, p in frontend.named_parameters() if p.requires_grad}
    assert len(trained) == 3 * 2 * 2  # layers, q and v, A and B
    assert all("lora_" in n and p.dtype == torch.float32 for n, p in trained.items())
    full = WhisperFrontend(str(whisper[0]), dtype="float32", lora={"r": 4, "alpha": 8})
    torch.testing.assert_close(full(*batch)[0], plain(*batch)[0])  # starts as the identity
    full(*batch)[0].square().sum().backward()
    grads = {n: p.grad for n, p in full.named_parameters() if p.grad is not None}
    assert set(grads) == set(trained)
    assert all(g.any() for n, g in grads.items() if "lora_B" in n)
    with pytest.raises(ValueError, match="rank"):
        WhisperFrontend(str(whisper[0]), lora={"rank": 4})


def test_encode_trains_an_encoder():
    encoder = WhisperEncoder(tiny_config())
    mel = torch.randn(2, 80, 40)
    (last,) = encode(encoder.train(), mel, torch.tensor([20, 11]))
    last.sum().backward()
    assert encoder.conv1.weight.grad.any() and encoder.layers[0].fc1.weight.grad.any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_close_to_float32(whisper, dtype, autocast):
    batch = padded([torch.randn(9000), torch.randn(3000)])
    full, _ = WhisperFrontend(str(whisper[0]), dtype="float32")(*batch)
    frontend = WhisperFrontend(str(whisper[0]), dtype=dtype, lora={"r": 2})
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found, _ = frontend(*batch)
    similarity = torch.cosine_similarity(full.flatten(), found.float().flatten(), dim=0)
    assert similarity > 0.999
