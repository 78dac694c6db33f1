import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperModel,
)

from espnet_smop.bin.avsr_inference import main as infer
from espnet_smop.bin.llama_smop import main as llama_smop
from espnet_smop.checkpoint.llama_smop.experiment import import_checkpoint
from espnet_smop.checkpoint.llama_smop.frontends import (
    PublicWhisperFrontend,
    UnmaskedAVHuBERTFrontend,
    UnmaskedWhisperFrontend,
)
from espnet_smop.checkpoint.llama_smop.names import CheckpointError, trained_weights
from espnet_smop.checkpoint.llama_smop.settings import FRONTENDS, Options, infer_config
from espnet_smop.checkpoint.llama_smop.weights import short_dtypes, write_back
from espnet_smop.command import run
from espnet_smop.config import load_config
from espnet_smop.fileio.video import read_video, write_video
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTFrontend, AVHuBERTModel, save
from espnet_smop.lora import inject_lora
from espnet_smop.tasks.avsr import AVSRTask

sys.path.insert(0, str(Path(__file__).parent))
from public_model import PublicModel

# Odd and even numbers, less than Whisper's least 25 frames, and 106: 67,840 samples are 212 frames,
# of which float32 arithmetic loses one, and with it a token of four.
FRAMES = (106, 21, 9)


@pytest.fixture(scope="module")
def bases(make_llm, tmp_path_factory):
    """Whisper and AV-HuBERT of equal width, and LLMs with tied and untied embeddings."""
    root = tmp_path_factory.mktemp("base models")
    torch.manual_seed(0)
    sizes = {"encoder_layers": 2, "decoder_layers": 1}
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(d_model=16, vocab_size=20, init_std=0.3, **sizes, **special)
    WhisperModel(config).save_pretrained(root / "whisper")
    AVHuBERTModel(
        AVHuBERTConfig(
            encoder_layers=2, encoder_embed_dim=16, encoder_ffn_embed_dim=32,
            encoder_attention_heads=2, conv_pos=8, conv_pos_groups=2, resnet_stem_channels=4,
            resnet_stem_stride=4, resnet_channels=[4, 4, 8, 8], resnet_blocks=[1, 1, 1, 1],
        )
    ).save_pretrained(root / "avhubert")  # fmt: skip
    return {
        "whisper": str(root / "whisper"),
        "avhubert": str(root / "avhubert"),
        "llm": make_llm("llama3"),
        "untied": make_llm("smollm"),
    }


def public_model(bases, llm="llm", seed=3, **changes):
    torch.manual_seed(seed)
    used = {name: bases[name] for name in ("whisper", "avhubert")}
    return PublicModel(llm=bases[llm], **used, **changes)


def import_model(public, bases, out, *, llm="llm", state=None, **options):
    file = Path(out).with_suffix(".pth")
    torch.save(public.state_dict() if state is None else state, file)
    used = {
        name: bases[name]
        for name, modality in (("whisper", "audio"), ("avhubert", "video"))
        if modality in public.modalities
    }
    import_checkpoint(file, out, llm=bases[llm], **used, options=Options(**options))
    return AVSRTask.load_model(str(out / "config.yaml"), str(out / "valid.acc.ave.pth"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Raw audio and video files, as a data directory, and their contents."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(5)
    lists = {"wav.scp": "", "video.scp": ""}
    contents = {}
    for i, frames in enumerate(FRAMES):
        wav, video = root / f"{i}.wav", root / f"{i}.mkv"
        soundfile.write(wav, np.clip(rng.normal(size=frames * 640) * 0.1, -1, 1), 16000)
        pictures = np.kron(rng.integers(0, 255, (frames, 12, 12)), np.ones((8, 8)))
        write_video(video, pictures.astype(np.uint8))
        lists["wav.scp"] += f"utt{i} {wav}\n"
        lists["video.scp"] += f"utt{i} {video}\n"
        contents[f"utt{i}"] = (soundfile.read(wav, dtype="float32")[0], read_video(video))
    for name, text in lists.items():
        (root / name).write_text(text)
    return root, contents


def prepared(contents, rate):
    """What the public data loader gives: normalised, padded with zeros, video cut to the rate."""
    speech, video = [], []
    for samples, pictures in contents:
        wave = torch.from_numpy(samples)
        speech.append(F.layer_norm(wave, wave.shape, eps=1e-8))
        crop = torch.from_numpy(pictures[:, 4:92, 4:92]).float() / 255
        crop = (crop - 0.421) / 0.165
        video.append(crop[: len(crop) // rate * rate])
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(speech, True), [len(s) for s in speech], pad(video, True), [len(v) for v in video]


def decode(out, data, modalities, *more):
    root, _ = data
    inputs = {"audio": "wav.scp,speech,sound", "video": "video.scp,video,video"}
    given = [("--data_path_and_name_and_type", f"{root}/{inputs[m]}") for m in modalities]
    target = out / "decoded" / "_".join(more)
    infer(
        [
            *("--avsr_train_config", str(out / "config.yaml"), "--output_dir", str(target)),
            *("--avsr_model_file", str(out / "imported.pth"), "--num_workers", "0"),
            *(word for pair in given for word in pair),
            *more,
        ]
    )
    lines = (target / "1best_recog" / "text").read_text().splitlines()
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}


CASES = {
    "smop": {},
    "untied": {"llm": "untied", "num_experts": 3, "rates": (3, 3)},
    "dense": {"kind": "dense", "rates": (4, 3)},
    "dense video": {"kind": "dense", "modality": "video", "rates": (1, 3), "video_rank": 4},
    "dense audio": {"kind": "dense", "modality": "audio", "rates": (5, 1), "rank": 8, "alpha": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_the_public_code(bases, data, tmp_path, case):
    public = public_model(bases, **CASES[case])
    out = tmp_path / "the experiment"
    settings = {k: v for k, v in CASES[case].items() if k in ("rank", "alpha")}
    if public.kind == "smop":
        settings |= {f"{m}_rate": r for m, r in public.rates.items()}
    import_model(public, bases, out, llm=CASES[case].get("llm", "llm"), **settings)
    contents = data[1]
    texts = set()
    for beams in (1, 4, 15):
        words = ("--beam_size", str(beams), "--max_new_tokens", "12")
        found = decode(out, data, public.modalities, *words)
        expected = {}
        for uid, content in contents.items():
            speech, lengths, video, _ = prepared([content], public.rates["video"])
            [text] = public.generate(speech, lengths, video, beams=beams, max_new_tokens=12)
            expected[uid] = text.strip()
        assert found == expected
        texts |= set(expected.values())
    assert len(texts) > 2  # the comparison could have failed


def unmask(model, masking):
    """Let the frontends treat padding as the public code does, or not."""
    model.frontends["audio"].__class__ = (
        UnmaskedWhisperFrontend if masking else PublicWhisperFrontend
    )
    model.frontends["video"].__class__ = UnmaskedAVHuBERTFrontend if masking else AVHuBERTFrontend


def batch_for(model, contents, rate):
    speech, lengths, video, frames = prepared(contents, rate)
    texts = [list(range(5 + i, 9 + 2 * i)) for i in range(len(contents))]
    longest = max(map(len, texts))
    padded = torch.tensor([t + [-1] * (longest - len(t)) for t in texts])
    batch = {
        "speech": speech, "speech_lengths": torch.tensor(lengths),
        "video": video, "video_lengths": torch.tensor(frames),
        "text": padded, "text_lengths": torch.tensor([len(t) for t in texts]),
    }  # fmt: skip
    return batch, (speech, lengths, video, texts)


def text_logits(model, monkeypatch, batch):
    """Run the model; return the logits (N, V) of its text and EOS tokens, and what it returned."""
    seen = []
    compute = model.decoder.logits
    with monkeypatch.context() as patch:
        patch.setattr(model.decoder, "logits", lambda h: seen.append(compute(h)) or seen[-1])
        returned = model(**batch)
    return seen[0], returned


@pytest.mark.parametrize("case", ["smop", "untied"])
@torch.no_grad()
def test_logits_and_losses_are_those_of_the_public_code(bases, data, tmp_path, monkeypatch, case):
    public = public_model(bases, **CASES[case])
    model, _ = import_model(
        public, bases, tmp_path / "exp", llm=CASES[case].get("llm", "llm"),
        **{f"{m}_rate": r for m, r in public.rates.items()},
    )  # fmt: skip
    contents = list(data[1].values())
    for i, content in enumerate(contents):
        batch, inputs = batch_for(model, [content], public.rates["video"])
        inputs[-1][0] += [7] * i
        batch["text"] = torch.tensor(inputs[-1])
        batch["text_lengths"] = torch.tensor([len(inputs[-1][0])])
        loss, balance, z, tokens, logits, _ = public.losses(*inputs)
        for masking in (False, True):
            unmask(model, masking)
            found, (total, stats, weight) = text_logits(model, monkeypatch, batch)
            torch.testing.assert_close(found, logits[0], atol=1e-4, rtol=0)
            assert float(stats["loss_ce"]) == pytest.approx(float(loss), abs=1e-5)
            assert float(stats["loss_balance"]) == pytest.approx(float(balance), abs=1e-5)
            assert float(stats["loss_z"]) == pytest.approx(float(z), abs=1e-5)
            expected = loss + 0.01 * balance + 0.001 * z
            assert float(total) == pytest.approx(float(expected), abs=1e-5)
            assert int(weight) == tokens


@torch.no_grad()
def test_losses_of_a_padded_batch_with_and_without_the_public_masking(bases, data, tmp_path):
    public = public_model(bases)
    model, _ = import_model(public, bases, tmp_path / "exp")
    contents = list(data[1].values())
    batch, inputs = batch_for(model, contents, 2)

    loss, balance, z, *_ = public.losses(*inputs)
    unmask(model, True)
    total, stats, _ = model(**batch)
    for name, expected in (("ce", loss), ("balance", balance), ("z", z)):
        assert float(stats[f"loss_{name}"]) == pytest.approx(float(expected), abs=1e-5)
    assert float(total) == pytest.approx(float(loss + 0.01 * balance + 0.001 * z), abs=1e-5)

    # Without it, every utterance gets what it gets alone.
    from public_model import auxiliary

    ce, routers, tokens = 0.0, [], 0
    for i, content in enumerate(contents):
        _, single = batch_for(model, [content], 2)
        alone, _, _, n, _, router = public.losses(*single[:3], [inputs[3][i]])
        ce, tokens = ce + float(alone) * n, tokens + n
        routers.append(router)
    balance, z = auxiliary(torch.cat(routers), 2)
    unmask(model, False)
    _, stats, _ = model(**batch)
    assert float(stats["loss_ce"]) == pytest.approx(ce / tokens, abs=1e-5)
    assert float(stats["loss_balance"]) == pytest.approx(float(balance), abs=1e-5)
    assert float(stats["loss_z"]) == pytest.approx(float(z), abs=1e-5)
    assert abs(float(stats["loss_ce"]) - float(loss)) > 1e-3  # masking is not without effect


def test_padding_as_in_the_public_code_is_a_setting(bases, tmp_path):
    out = tmp_path / "exp"
    import_model(public_model(bases), bases, out)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["audio_frontend"] == f"{FRONTENDS}:PublicWhisperFrontend"
    config["audio_frontend"] = f"{FRONTENDS}:UnmaskedWhisperFrontend"
    config["video_frontend"] = f"{FRONTENDS}:UnmaskedAVHuBERTFrontend"
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    model, _ = AVSRTask.load_model(str(out / "config.yaml"), str(out / "imported.pth"))
    assert isinstance(model.frontends["audio"], UnmaskedWhisperFrontend)
    assert isinstance(model.frontends["video"], UnmaskedAVHuBERTFrontend)


@pytest.mark.parametrize("case", CASES)
def test_written_back_it_is_the_checkpoint(bases, tmp_path, case):
    public = public_model(bases, **CASES[case])
    settings = {k: v for k, v in CASES[case].items() if k in ("rank", "alpha")}
    model, _ = import_model(
        public, bases, tmp_path / "exp", llm=CASES[case].get("llm", "llm"), **settings
    )
    state = public.state_dict()
    own = trained_weights(model)
    assert own.keys() == {n for n in state if "_proj.0" in n or "_proj.2" in n or "lora_" in n} | {
        n for n in state if n.startswith("audiovisual_proj.")
    }
    assert all(torch.equal(own[name], state[name]) for name in own)
    back = write_back(model, state)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_statistics_and_rows_come_from_the_checkpoint_and_into_the_experiments(bases, tmp_path):
    public = public_model(bases, llm="untied")
    _, args = import_model(public, bases, tmp_path / "exp", llm="untied")
    saved = torch.load(tmp_path / "exp" / "imported.pth", weights_only=True)
    state = public.state_dict()
    assert not any("base_layer" in n or "embed_positions" in n for n in saved)
    base = AVHuBERTModel.from_pretrained(bases["avhubert"]).state_dict()
    statistics = [n for n in saved if "running_" in n or "num_batches" in n]
    assert len(statistics) == 3 * sum(n.endswith("running_var") for n in base)
    for name in statistics:
        short = name.removeprefix("frontends.video.encoder.")
        assert torch.equal(saved[name], state[f"video_encoder.{short}"])
        assert not torch.equal(saved[name], base[short])
    rows = state["llm.model.embed_tokens.weight"][-5:]
    assert torch.equal(saved["decoder.extra_rows.input"], rows)
    assert torch.equal(saved["decoder.extra_rows.output"], state["llm.lm_head.weight"][-5:])
    assert torch.equal(saved["decoder.delimiters"], rows[1:])
    # The bases of the config are the published ones, whatever the statistics.
    again, _ = AVSRTask.load_model(
        str(tmp_path / "exp" / "config.yaml"), str(tmp_path / "exp" / "imported.pth")
    )
    assert again.fingerprints() == args.base_fingerprints
    names = again.frontends["video"].encoder.state_dict()
    assert all(
        torch.equal(names[n], v) for n, v in base.items() if "running" not in n and "num_b" not in n
    )


def test_what_the_shapes_tell_is_inferred(bases, tmp_path):
    public = public_model(bases, kind="dense", rates=(4, 3), rank=2, hidden=12)
    _, args = import_model(public, bases, tmp_path / "dense")
    assert args.projector == "mlp"
    assert args.projector_conf == {
        "hidden_size": 12, "layer_norm": False,
        "downsample": {"mode": "stack", "audio": 4, "video": 3, "remainder": "drop"},
    }  # fmt: skip
    assert args.decoder_conf["lora"] == {
        "r": 16, "alpha": 32, "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip
    public = public_model(bases, num_experts=3)
    _, args = import_model(public, bases, tmp_path / "sparse", top_k=3)
    conf = args.projector_conf
    assert (conf["routing"], conf["num_experts"], conf["top_k"]) == ("jejr", 3, 3)
    assert conf["normalize_top_k"] and conf["expert_layer_norm"] and conf["hidden_size"] == 20
    assert conf["downsample"] == {"mode": "avgpool", "audio": 4, "video": 2, "remainder": "drop"}
    assert (
        args.audio_frontend_conf["padding"] == "30s"
        and args.audio_frontend == f"{FRONTENDS}:PublicWhisperFrontend"
    )
    assert args.preprocessor_conf == {"video_multiple": 2}
    assert args.inference_conf == {"beam_size": 15, "length_penalty": 1.0, "max_new_tokens": 32}


def changed(state, name, value):
    return {**state, name: value}


def without(state, part):
    return {name: value for name, value in state.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s, {"rank": 8}, r"--rank 8: adapters of inner width 8.*mean a rank of 4"),
        (lambda s: s, {"num_experts": 3}, r"--num_experts 3, but the weights have 4 experts"),
        (lambda s: s, {"top_k": 5}, r"--top_k 5: there are 4 experts"),
        (lambda s: s, {"video_rate": 0}, r"--video_rate 0: expected 1 or more"),
        (lambda s: s, {"downsample": "stack", "audio_rate": 4}, r"--audio_rate 4: .* it is 1"),
        (lambda s: without(s, "experts.2."), {}, r"gate.weight is for 4 experts"),
        (lambda s: without(s, "experts.1.3.bias"), {}, r"has no audiovisual_proj.*1\.3\.bias"),
        (lambda s: without(s, "layers.1.self_attn.lora_up_V"), {}, r"has no llm.*lora_up_V"),
        (lambda s: without(s, "fc1.bias"), {}, r"missing in the checkpoint: audio_encoder.*fc1"),
        (lambda s: without(s, "running_mean"), {}, r"has no video_encoder.*running_mean"),
        (lambda s: without(s, "audiovisual_proj"), {}, r"need projectors.*found none"),
        (lambda s: {"model." + k: v for k, v in s.items()}, {}, r"not part of a Llama-SMoP.*model"),
        (lambda s: changed(s, "llm.model.extra", torch.ones(1)), {}, r"no place.*llm\.model\.ext"),
        (
            lambda s: changed(s, "llm.lm_head.weight", s["llm.lm_head.weight"] + 1),
            {}, r"ties its input and output embeddings, but",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_errors(bases, tmp_path, change, options, message):
    public = public_model(bases)
    state = change(dict(public.state_dict()))
    with pytest.raises(CheckpointError, match=message):
        import_model(public, bases, tmp_path / "exp", state=state, **options)
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("audio_encoder.layers.1.fc1.weight", "--whisper"),
        ("video_encoder.encoder.layers.0.fc2.weight", "--avhubert"),
        ("video_encoder.feature_extractor_video.resnet.trunk.layer1.0.bn1.weight", "--avhubert"),
        ("llm.model.layers.1.mlp.up_proj.weight", "--llm"),
        ("llm.model.norm.weight", "--llm"),
    ],
)
def test_other_bases_are_noticed_by_a_single_value(bases, tmp_path, name, option):
    public = public_model(bases)
    state = {k: v.clone() for k, v in public.state_dict().items()}
    state[name].view(-1)[-1] += 1e-4
    with pytest.raises(CheckpointError) as raised:
        import_model(public, bases, tmp_path / "exp", state=state)
    assert f"with other values: {name} ({option})" in str(raised.value)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda table: table[:-1], "expected exactly 5 more: <pad> <audio>"),
        (lambda table: table[:, :-1], r"the checkpoint's LLM has width 31, '.*' has 32"),
    ],
)
def test_an_llm_with_another_vocabulary_or_width_is_refused(bases, tmp_path, cut, message):
    public = public_model(bases)
    table = "llm.model.embed_tokens.weight"
    state = changed(public.state_dict(), table, cut(public.state_dict()[table]))
    with pytest.raises(CheckpointError, match=message):
        import_model(public, bases, tmp_path / "exp", state=state)


def test_which_dtypes_hold_all_values():
    weights = [torch.randn(50, 50), torch.ones(3)]
    assert short_dtypes(weights) == []
    assert short_dtypes(weights[1:]) == [torch.float16, torch.bfloat16]
    for dtype, alone in ((torch.float16, 1 + 2.0**-10), (torch.bfloat16, 2.0**17)):
        rounded = [w.to(dtype).float() for w in weights]
        assert short_dtypes([*rounded, torch.tensor([alone])]) == [dtype]


def test_a_checkpoint_in_half_precision_is_imported(bases, tmp_path):
    public = public_model(bases)
    state = {
        k: v.to(torch.bfloat16) if v.is_floating_point() else v
        for k, v in public.state_dict().items()
    }
    model, _ = import_model(public, bases, tmp_path / "exp", state=state)
    own = trained_weights(model)
    assert all(torch.equal(own[name], state[name].float()) for name in own)
    name = "audio_encoder.layers.1.fc1.weight"
    state[name].view(-1)[-1] *= 1.02
    with pytest.raises(CheckpointError, match="with other values: audio_encoder"):
        import_model(public, bases, tmp_path / "other", state=state)


def test_the_tokenizer_may_lie_elsewhere_and_know_the_added_tokens(bases, tmp_path):
    public = public_model(bases)
    public.tokenizer.save_pretrained(tmp_path / "tokenizer")
    torch.save(public.state_dict(), tmp_path / "m.pth")
    llama_smop(
        [
            *("import", "--checkpoint", str(tmp_path / "m.pth"), "--out", str(tmp_path / "exp")),
            *("--llm", bases["llm"], "--whisper", bases["whisper"]),
            *("--avhubert", bases["avhubert"], "--tokenizer", str(tmp_path / "tokenizer")),
        ]
    )
    _, args = AVSRTask.load_model(str(tmp_path / "exp/config.yaml"))
    assert args.decoder_conf["tokenizer"] == str(tmp_path / "tokenizer")
    encode = AVSRTask.build_preprocess_fn(args, train=False).encode_text
    assert len(encode.tokenizer) == len(public.tokenizer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"not a checkpoint", "m.pth"),
        (
            {"state_dict": {"a": torch.ones(1)}},
            "entries that are not tensors, such as 'state_dict'",
        ),
        ({"a": Path("x")}, "objects other than tensors"),
    ],
)
def test_unreadable_files_end_in_one_line(bases, tmp_path, content, message, capsys):
    file = tmp_path / "m.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(SystemExit) as stopped:
        run(
            llama_smop,
            ["import", "--checkpoint", str(file), "--llm", bases["llm"], "--out", "not written"],
        )
    assert message in stopped.value.code and "\n" not in stopped.value.code
    assert "Traceback" not in capsys.readouterr().err


def test_an_existing_experiment_is_left_alone(bases, tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "train.log").write_text("precious")
    with pytest.raises(CheckpointError, match="exists already"):
        import_model(public_model(bases), bases, tmp_path / "exp")
    assert (tmp_path / "exp" / "train.log").read_text() == "precious"


def test_training_goes_on_from_it_and_what_comes_of_it_is_exported(bases, data, tmp_path):
    public = public_model(bases)
    out = tmp_path / "exp"
    model, args = import_model(public, bases, out)
    original = torch.load(tmp_path / "exp.pth", weights_only=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch, _ = batch_for(model, list(data[1].values()), 2)
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(**batch)[0].backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    kinds = ("projector.", "lora_A", "lora_B")
    assert changed == {k for k in before if any(kind in k for kind in kinds)}
    torch.save(model.state_dict(), out / "1epoch.pth")
    llama_smop(
        [
            *("export", "--exp", str(out), "--avsr_model_file", "1epoch.pth"),
            *("--original", str(tmp_path / "exp.pth"), "--out", str(tmp_path / "further.pth")),
        ]
    )
    further = torch.load(tmp_path / "further.pth", weights_only=True)
    public.load_state_dict(further)  # all of it, under the public names
    differing = {k for k in original if not torch.equal(original[k], further[k])}
    assert differing == {k for k in original if "lora_" in k or k.startswith("audiovisual_proj.")}
    again, _ = import_model(public, bases, tmp_path / "again", state=further)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())
    assert args.optim == "adamw"


def test_what_public_checkpoints_cannot_hold_is_not_left_out_silently(bases, tmp_path):
    model, _ = import_model(public_model(bases), bases, tmp_path / "exp")
    inject_lora(model.frontends["audio"].encoder, {"r": 2})
    with pytest.raises(CheckpointError, match=r"no name for frontends.audio.*lora_A.*is trained"):
        trained_weights(model)


def test_the_config_is_one_that_training_takes(bases, tmp_path):
    import_model(public_model(bases), bases, tmp_path / "exp")
    words = ["--config", str(tmp_path / "exp" / "config.yaml"), "--output_dir", "x"]
    args = AVSRTask.get_parser().parse_args(words)
    assert args.projector_conf["routing"] == "jejr" and args.grad_clip == 10
    assert args.base_fingerprints.keys() == {
        "audio_frontend.whisper", "video_frontend.avhubert", "decoder.llm", "decoder.tokenizer",
    }  # fmt: skip


@pytest.fixture(scope="module")
def published_layout(tmp_path_factory):
    """Weights with the names and shapes of a published checkpoint, and its bases."""
    root = tmp_path_factory.mktemp("layout")
    layout = json.loads((Path(__file__).parents[2] / "golden" / LAYOUT).read_text())
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.randn(s, generator=generator) * 0.1 for k, s in layout["state_dict"].items()}
    for name in state:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
    state["llm.lm_head.weight"] = state["llm.model.embed_tokens.weight"].clone()

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    encoder = WhisperModel(WhisperConfig.from_dict(layout["whisper_config"]))
    encoder.encoder.load_state_dict(part("audio_encoder."))
    encoder.save_pretrained(root / "whisper")
    names = set(AVHuBERTModel(AVHuBERTConfig(**AVHUBERT)).state_dict())
    video = {k: v.clone() for k, v in part("video_encoder.").items() if k in names}
    for name in video:
        if "running_" in name:
            video[name] += 0.5  # before the drift
    save(AVHuBERTConfig(**AVHUBERT), video, root / "avhubert")
    config = LlamaConfig.from_dict(layout["llm_config"])
    llm = LlamaForCausalLM(config)
    weights = {k: v for k, v in part("llm.").items() if "lora_" not in k}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][: config.vocab_size]
    llm.load_state_dict(weights)
    llm.save_pretrained(root / "llm")
    ids = layout["special_token_ids"]
    words = {f"w{i}": i for i in range(config.vocab_size) if i not in ids.values()}
    words |= {k: v for k, v in ids.items() if v < config.vocab_size}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")),
        bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>",
    ).save_pretrained(root / "llm")  # fmt: skip
    torch.save(state, root / "model.pth")
    return root, state, layout["args"]


LAYOUT = "llama_smop_tiny_layout.json"
AVHUBERT = {
    "encoder_layers": 2,
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 4,
}


@pytest.mark.parametrize("told", [False, True])
def test_names_and_shapes_of_a_published_checkpoint(published_layout, tmp_path, told):
    root, state, args = published_layout
    words = [
        *("import", "--checkpoint", str(root / "model.pth"), "--out", str(tmp_path / "exp")),
        *(w for n in ("llm", "whisper", "avhubert") for w in (f"--{n}", str(root / n))),
    ]
    if told:
        words += ["--rank", args["rank"], "--alpha", args["alpha"], "--downsample", "avgpool"]
        words += ["--num_experts", args["MoP_experts"], "--top_k", args["MoP_topk"]]
        words += ["--audio_rate", args["downsample_ratio_audio"]]
        words += ["--video_rate", args["downsample_ratio_video"]]
    llama_smop(words)
    model, settings = AVSRTask.load_model(
        str(tmp_path / "exp" / "config.yaml"), str(tmp_path / "exp" / "imported.pth")
    )
    assert settings.projector_conf["hidden_size"] == int(args["intermediate_size"])
    assert settings.projector_conf["num_experts"] == int(args["MoP_experts"])
    assert settings.decoder_conf["lora"]["r"] == 96 // int(args["rank"])
    scale = int(args["alpha"]) / int(args["rank"])
    assert settings.decoder_conf["lora"]["alpha"] == scale * 96 // int(args["rank"])
    assert settings.decoder_conf["num_extra_rows"] == 5
    assert settings.decoder_conf["prompt"] == args["prompt_audiovisual"]
    back = write_back(model, state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    mean = "feature_extractor_video.resnet.frontend3D.1.running_mean"
    own = model.frontends["video"].encoder.state_dict()[mean]
    assert torch.equal(own, state[f"video_encoder.{mean}"])


def test_the_lrs3_recipe_has_a_config_of_the_preset(published_layout, tmp_path):
    root, state, _ = published_layout
    names = ("llm", "whisper", "avhubert")
    imported = infer_config(state, **{n: str(root / n) for n in names})
    recipe = Path(__file__).resolve().parents[3] / "egs2" / "lrs3" / "avsr_smop1"
    config = load_config(recipe / "conf" / "train_avsr_smop4_jejr_reference.yaml")
    args = AVSRTask.get_parser().parse_args([])
    assert config.keys() <= vars(args).keys()
    # Sizes and places are another model's; statistics of one's own come with another's weights.
    others = {"model", "hidden_size", "tokenizer", "lora", "own_statistics"}
    others |= {"expert_layer_norm"}  # true, this project's default as well
    for part in ("audio_frontend", "video_frontend", "projector", "decoder", "preprocessor"):
        conf = {k: v for k, v in imported[f"{part}_conf"].items() if k not in others}
        assert {k: config.get(f"{part}_conf", {}).get(k) for k in conf} == conf
    assert config["inference_conf"] == imported["inference_conf"]
