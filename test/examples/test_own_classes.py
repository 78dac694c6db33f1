"""Classes that the package does not know, from training to the report.

They are given by class path alone: `qformer_projector:QFormerProjector`,
`hubert_frontend:HubertFrontend` and minimal ones of the other kinds, modules on the path as a
user's are.
"""

import csv
import re

import pytest
import soundfile
import torch
import yaml
from transformers import HubertConfig, HubertModel

from espnet_smop.bin import avsr_inference, avsr_train, package, results
from espnet_smop.experiments.dry_run import dry_run
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import read_video
from espnet_smop.inference import AVSRSpeech2Text
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.token_batches import prefix_lengths

QFORMER = {
    "projector": "qformer_projector:QFormerProjector",
    "projector_conf": {"tokens_per_second": 3, "hidden_size": 8, "num_heads": 2},
}


@pytest.fixture(scope="module")
def tiny_hubert(tmp_path_factory):
    """Return a directory with a two-layer HuBERT of the BASE kind, with group normalisation."""
    torch.manual_seed(3)
    directory = tmp_path_factory.mktemp("hubert")
    HubertModel(
        HubertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=[8] * 7,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
        )
    ).save_pretrained(directory)
    return str(directory)


def hubert(directory):
    return {
        "audio_frontend": "hubert_frontend:HubertFrontend",
        "audio_frontend_conf": {"model": directory},
    }


def gru(directory):
    return {
        "decoder": "minimal_parts:GRUDecoder",
        "decoder_conf": {"tokenizer": directory},
        "preprocessor": "minimal_parts:PlainPreprocessor",
        "preprocessor_conf": {"scale": 0.5},
    }


@pytest.fixture(params=["projector", "audio_frontend", "decoder"])
def own(request, tiny_hubert, make_llm):
    """Return what a config with one of the classes differs in."""
    made = {
        "projector": QFORMER,
        "audio_frontend": hubert(tiny_hubert),
        "decoder": gru(make_llm("llama3")),
    }
    return made[request.param]


@pytest.mark.slow
def test_from_training_to_the_report(own, train_command, dump_dir, tmp_path, capsys):
    settings = {"batch_type": "tokens", "batch_bins": 400, "batch_limits": {"frames": 120}}
    once = {"max_epoch": 1, "num_iters_per_epoch": 2}
    avsr_train.main([*train_command("avsr_own", **settings, **once, **own), "--ngpu", "0"])
    exp = tmp_path / "avsr_own"
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert {k: v for k, v in own.items() if k != "decoder_conf"}.items() <= config.items()

    decoded = exp / "decode" / "test"
    avsr_inference.main([
        *("--avsr_train_config", str(exp / "config.yaml"), "--max_new_tokens", "8"),
        *("--avsr_model_file", str(exp / "valid.acc.ave.pth"), "--beam_size", "2"),
        *("--data_path_and_name_and_type", f"{dump_dir}/wav.scp,speech,sound"),
        *("--data_path_and_name_and_type", f"{dump_dir}/video.scp,video,video"),
        *("--output_dir", str(decoded), "--num_workers", "0"),
    ])  # fmt: skip
    text = (decoded / "1best_recog" / "text").read_text()
    hypotheses = dict(re.findall(r"(\S+) ?(.*)\n", text))
    assert len(hypotheses) == 12

    package.main(["pack", "--exp", str(exp), "--out", str(tmp_path / "packed.zip")])
    speech2text = AVSRSpeech2Text.from_pretrained(
        tmp_path / "packed.zip", beam_size=2, max_new_tokens=8
    )
    [uid, *_] = hypotheses
    [(text, *_), *_] = speech2text(**inputs(dump_dir, uid))
    assert text == hypotheses[uid]

    ref = str(dump_dir / "text")
    hyp = str(decoded / "1best_recog" / "text")
    results.main(["score", "--ref", ref, "--hyp", hyp, "--sclite", "none", "--out_dir",
                  str(decoded)])  # fmt: skip
    results.main(["report", str(exp), "--data_dir", str(dump_dir), "--out", str(tmp_path / "out")])
    [cost] = csv.DictReader((tmp_path / "out" / "figures" / "cost.csv").open())
    assert float(cost["parameters_trained"]) > 0 and float(cost["rtf"]) > 0
    for part in ("audio_encoder", "video_encoder", "projector", "LLM"):
        assert float(cost[f"gflop_per_second_{part}"]) > 0
    assert (tmp_path / "out" / "figures" / "usage_own.csv").exists() == ("projector" not in own)


def inputs(dump_dir, uid):
    paths = [read_table(dump_dir / name)[uid] for name in ("wav.scp", "video.scp")]
    return {"speech": soundfile.read(paths[0])[0], "video": read_video(paths[1])}


def test_what_the_llm_gets_is_what_batches_count(own, model_args):
    """Positions before the text, of utterances of any length."""
    model = AVSRTask.build_model(model_args(**own)).eval()
    frames = torch.tensor([3, 24, 25, 26, 61])
    batch = random_batch(frames)
    with torch.no_grad():
        projected = model.project(**batch)
    counted = prefix_lengths(
        frames.numpy(),
        frontends=model.frontends,
        projector=model.projector,
        decoder=model.decoder,
    )
    prompt = model.decoder.prompt_length(("audio", "video"))
    found = sum(projected.lengths.values()) + prompt
    assert all(t.shape[1] == projected.lengths[m].max() for m, t in projected.tokens.items())
    # A convolution's last frame may need samples that are not there.
    assert all(0 <= c - f <= 1 for c, f in zip(counted.tolist(), found.tolist(), strict=True))


def random_batch(frames):
    generator = torch.Generator().manual_seed(0)
    longest = int(frames.max())
    return {
        "speech": torch.randn(len(frames), 640 * longest, generator=generator),
        "speech_lengths": 640 * frames,
        "video": torch.randn(len(frames), longest, 88, 88, generator=generator),
        "video_lengths": frames,
    }


def test_an_utterance_does_not_depend_on_its_batch(own, model_args):
    model = AVSRTask.build_model(model_args(**own)).eval()
    frames = torch.tensor([3, 40, 61])
    batch = random_batch(frames)
    with torch.no_grad():
        together = model.project(**batch)
        for row, n in enumerate(frames.tolist()):
            one = {k: v[row : row + 1] for k, v in batch.items()}
            one["speech"], one["video"] = one["speech"][:, : 640 * n], one["video"][:, :n]
            alone = model.project(**one)
            for modality, tokens in alone.tokens.items():
                count = int(alone.lengths[modality])
                assert count == int(together.lengths[modality][row])
                torch.testing.assert_close(
                    together.tokens[modality][row, :count], tokens[0], atol=1e-5, rtol=1e-4
                )


def test_tokens_of_the_projector_begin_at_the_scale_asked_for(model_args):
    model = AVSRTask.build_model(model_args(**QFORMER))
    model.projector.init_output_rms(torch.tensor(0.05))
    with torch.no_grad():
        projected = model.project(**random_batch(torch.tensor([25, 50])))
    for tokens in projected.tokens.values():
        assert 0.03 < float(tokens.square().mean().sqrt()) < 0.08


def test_what_it_leaves_out_is_said(tiny_hubert, model_args, monkeypatch):
    fusion = {"fusion": {"audio": "mmfuser"}}
    with pytest.raises(ValueError, match="fusion.audio is mmfuser, but the audio encoder does not"):
        AVSRTask.build_model(model_args(**hubert(tiny_hubert), projector_conf=fusion))
    warm_start = model_args(**QFORMER, model_conf={"ctc_warmup_steps": 1})
    AVSRTask.build_model(warm_start)
    monkeypatch.delattr("qformer_projector.QFormerProjector.init_output_rms")
    with pytest.raises(ValueError, match="QFormerProjector .*init_output_rms.*ctc_warmup_steps"):
        AVSRTask.build_model(warm_start)


def test_base_model_and_parameters_of_the_frontend(tiny_hubert, model_args):
    args = model_args(**hubert(tiny_hubert))
    frontend = AVSRTask.build_model(args).frontends["audio"]
    assert set(args.base_fingerprints) == {
        "audio_frontend.encoder",
        "video_frontend.avhubert",
        "decoder.llm",
        "decoder.tokenizer",
    }
    assert not frontend.is_trained and not frontend.has_checkpoint_state


def test_code_in_a_package_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "brought.py").write_text("open('it_ran', 'w')\n")
    (tmp_path / "config.yaml").write_text("decoder_conf: {}\nprojector: brought:Projector\n")
    monkeypatch.chdir(tmp_path)  # where `python -m` looks for modules first
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="brought:Projector is in .* code that comes with a model"):
        AVSRSpeech2Text.from_pretrained(tmp_path)
    assert not (tmp_path / "it_ran").exists()


def test_dry_run(own, train_command, tmp_path):
    settings = {"batch_type": "tokens", "batch_bins": 400, "batch_limits": {"frames": 120}}
    train_command("exp", **settings, max_epoch=3, num_iters_per_epoch=4, **own)
    run = dry_run(tmp_path / "exp.yaml", tmp_path / "skeletons")
    assert run.steps == 12 and run.trained > 0
