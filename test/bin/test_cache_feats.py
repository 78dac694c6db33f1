import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.train.dataset import ESPnetDataset

from espnet_smop.bin.cache_feats import main
from espnet_smop.fileio.video import read_video
from espnet_smop.frontend.avhubert import AVHuBERTFrontend
from espnet_smop.frontend.precomputed import FeatureCacheError, PrecomputedFeatures
from espnet_smop.frontend.whisper import WhisperFrontend
from espnet_smop.train.noise import load
from espnet_smop.train.preprocessor import AVSRPreprocessor, normalise_video

QUIET = {"speech_mask": None, "video_mask": None, "flip_probability": 0.0, "random_crop": False}


@pytest.fixture
def config(model_args, tmp_path):
    """A function that writes a training config."""

    def write(**changes):
        keys = [
            f"{part}{end}"
            for part in ("audio_frontend", "video_frontend", "projector")
            for end in ("", "_conf")
        ]
        settings = {k: v for k, v in vars(model_args(**changes)).items() if k in keys}
        settings["preprocessor_conf"] = changes.get("preprocessor_conf", QUIET)
        path = tmp_path / "train.yaml"
        path.write_text(yaml.safe_dump(settings))
        return str(path)

    return write


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_stores_what_the_frontend_computes(
    config, dump_dir, tmp_path, capsys, modality, tiny_whisper, tiny_avhubert
):
    root = tmp_path / "feature cache"
    out = root / f"{dump_dir.name}_{modality}"
    command = ["--config", config(), "--modality", modality, "--data_dir", str(dump_dir)]
    command += ["--out", str(root), "--batch_size", "5"]
    main(command)
    scp = capsys.readouterr().out.splitlines()[-1]
    assert scp == f"{out}/feats.scp"
    dataset = ESPnetDataset([(scp, "feats", "kaldi_ark")])
    preprocess = AVSRPreprocessor(train=False)
    file = {"audio": "wav.scp", "video": "video.scp"}[modality]
    lines = (dump_dir / file).read_text().splitlines()
    assert len(lines) == len(Path(scp).read_text().splitlines()) == 12
    for line in lines:
        uid, path = line.split()
        if modality == "audio":
            x = preprocess(uid, {"speech": soundfile.read(path)[0]})["speech"]
            frontend = WhisperFrontend(tiny_whisper)
        else:
            x = preprocess(uid, {"video": read_video(path)})["video"]
            frontend = AVHuBERTFrontend(tiny_avhubert)
        expected, _ = frontend(torch.from_numpy(x)[None], torch.tensor([len(x)]))
        np.testing.assert_allclose(dataset[uid][1]["feats"], expected[0].numpy(), atol=5e-4)
    # Again: left as it is.
    before = (out / "feats.ark").stat().st_mtime_ns
    main([*command, "--check"])
    main(command)
    assert (out / "feats.ark").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "modality", "named"),
    [
        ({"preprocessor_conf": {}}, "video", "flip_probability is on"),
        (
            {"preprocessor_conf": QUIET | {"speech_mask": {"max_width": 0.4, "stride": 1.0}}},
            "audio",
            "speech_mask is on",
        ),
        (
            {
                "preprocessor_conf": {
                    "noise": {"file": "x.wav", "snr": 0},
                    "noise_in_validation": True,
                    "feats_copies": {"audio": 2},
                }
            },
            "audio",
            "noise_in_validation is on",
        ),
        ({"audio_frontend": None}, "audio", "no audio_frontend"),
    ],
)
def test_what_cannot_be_cached_is_refused(config, dump_dir, tmp_path, changes, modality, named):
    command = ["--config", config(**changes), "--modality", modality]
    with pytest.raises(FeatureCacheError, match=named):
        main([*command, "--data_dir", str(dump_dir), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_lora_and_another_base_are_refused(
    config, dump_dir, tmp_path, tiny_whisper, make_whisper_like
):
    out, common = tmp_path / "out", ["--modality", "audio", "--data_dir", str(dump_dir)]
    lora = {"model": tiny_whisper, "lora": {"r": 2}}
    with pytest.raises(FeatureCacheError, match="lora"):
        main(["--config", config(audio_frontend_conf=lora), *common, "--out", str(out)])
    main(["--config", config(), *common, "--out", str(out)])
    other = {"model": make_whisper_like(tiny_whisper)}
    with pytest.raises(FeatureCacheError, match="fingerprints.whisper"):
        main(["--config", config(audio_frontend_conf=other), *common, "--out", str(out)])


@pytest.fixture
def make_whisper_like(tmp_path):
    """A function that saves a Whisper of the same sizes with other weights."""
    from transformers import WhisperConfig, WhisperModel

    def make(directory):
        torch.manual_seed(9)
        WhisperModel(WhisperConfig.from_pretrained(directory)).save_pretrained(tmp_path / "other")
        return str(tmp_path / "other")

    return make


def test_a_report_says_what_is_cached_and_why_the_rest_is_not(config, dump_dir, tmp_path):
    report, out = tmp_path / "exp" / "report", tmp_path / "out"
    mask = {"max_width": 0.4, "stride": 1.0}
    noisy = QUIET | {"noise": {"file": "absent.wav", "snr": 0}, "speech_mask": mask}
    command = ["--config", config(preprocessor_conf=noisy), "--data_dir", str(dump_dir)]
    command += ["--out", str(out)]
    main([*command, "--report", str(report)])
    assert report.read_text() == (
        "audio preprocessor_conf.noise is on (set null, or feats_copies); "
        "preprocessor_conf.speech_mask is on (set null, or feats_copies)\nvideo cached as video\n"
    )
    assert [p.name for p in out.iterdir() if p.is_dir()] == [f"{dump_dir.name}_video"]
    # Arguments win over the config, as in training
    off = ["--preprocessor_conf", "noise=null", "--preprocessor_conf", "speech_mask=null"]
    main([*command, "--report", str(report), *off])
    assert report.read_text() == "audio cached as audio\nvideo cached as video\n"
    # Without a report, what cannot be cached is an error
    with pytest.raises(FeatureCacheError, match="noise is on"):
        main(command)


def test_several_sets_at_once(config, dump_dir, tmp_path, capsys):
    other = tmp_path / "valid"
    other.symlink_to(dump_dir)
    command = ["--config", config(), "--out", str(tmp_path / "out"), "--data_dir", str(dump_dir)]
    main([*command, str(other), "--modality", "audio"])
    names = [f"{dump_dir.name}_audio", "valid_audio"]
    assert capsys.readouterr().out.split() == [f"{tmp_path}/out/{n}/feats.scp" for n in names]
    for more in ([str(dump_dir)], ["--train_dir", str(other)]):
        with pytest.raises(SystemExit):
            main([*command, str(other), *more])
        assert "the same name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command[:-2])
    assert "give --train_dir, --data_dir or both" in capsys.readouterr().err


def test_a_cache_of_files_that_changed_is_refused(config, dump_dir, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(dump_dir, data)
    for line in (dump_dir / "wav.scp").read_text().splitlines():
        uid, path = line.split()
        shutil.copy(path, data / f"{uid}.wav")
    scp = [f"{line.split()[0]} {data}/{line.split()[0]}.wav\n" for line in
           (dump_dir / "wav.scp").read_text().splitlines()]  # fmt: skip
    (data / "wav.scp").write_text("".join(scp))
    command = ["--config", config(), "--modality", "audio", "--data_dir", str(data)]
    command += ["--out", str(tmp_path / "out")]
    main(command)
    main([*command, "--check"])
    first = data / f"{scp[0].split()[0]}.wav"
    samples, rate = soundfile.read(first)
    soundfile.write(first, samples[:-1], rate)
    with pytest.raises(FeatureCacheError, match=r"data \("):
        main(command)


def read_all(scp):
    dataset = ESPnetDataset([(str(scp), "feats", "kaldi_ark")])
    uids = [line.split()[0] for line in scp.read_text().splitlines()]
    return {uid: dataset[uid][1]["feats"] for uid in uids}


def test_copies_are_what_the_frontend_makes_of_differently_augmented_signals(
    config, dump_dir, tmp_path, tiny_avhubert
):
    augmented = {"flip_probability": 0.5, "random_crop": True, "video_mask": None}
    augmented |= {"speech_mask": None, "feats_copies": {"video": 3}}
    valid = tmp_path / "valid"
    valid.symlink_to(dump_dir)
    out = tmp_path / "out"
    common = ["--config", config(preprocessor_conf=augmented), "--modality", "video"]
    common += ["--train_dir", str(dump_dir), "--data_dir", str(valid)]
    main([*common, "--out", str(out)])
    train, plain = (read_all(out / f"{n}_video/feats.scp") for n in (dump_dir.name, "valid"))
    paths = dict(line.split() for line in (dump_dir / "video.scp").read_text().splitlines())
    uid = min(plain, key=lambda uid: len(plain[uid]))
    video = read_video(paths[uid])
    spans = [slice(i, i + 88) for i in range(9)]
    places = list(itertools.product(spans, spans))
    crops = [normalise_video(video[:, rows, columns]) for rows, columns in places]
    crops = torch.from_numpy(np.stack(crops + [crop[:, :, ::-1] for crop in crops]))
    frontend = AVHuBERTFrontend(tiny_avhubert)
    possible, _ = frontend(crops, torch.full((len(crops),), len(video)))
    possible = possible.numpy()
    np.testing.assert_allclose(plain[uid], possible[40], atol=5e-4)  # the centre
    errors = [abs(possible - copy).max(axis=(1, 2)) for copy in np.split(train[uid], 3)]
    assert all(error.min() < 5e-4 for error in errors)
    assert len({error.argmin() for error in errors}) == 3
    # The same in another run, whatever was drawn before
    np.random.seed(5)
    main([*common, "--out", str(tmp_path / "again"), "--batch_size", "3"])
    again = read_all(tmp_path / "again" / f"{dump_dir.name}_video" / "feats.scp")
    assert all(np.allclose(again[uid], feats, atol=5e-4) for uid, feats in train.items())


def test_a_cache_of_other_copies_is_refused(config, dump_dir, tmp_path):
    def command(**conf):
        conf = QUIET | {"feats_copies": {"audio": 2}} | conf
        words = ["--config", config(preprocessor_conf=conf), "--modality", "audio"]
        return [*words, "--train_dir", str(dump_dir), "--out", str(tmp_path / "out")]

    noise = tmp_path / "noise.wav"
    soundfile.write(noise, np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    on = {"noise": {"file": str(noise), "snr": [0, 5]}}
    main(command(**on))
    main(command(**on))
    for changes, named in (
        ({**on, "feats_copies": {"audio": 3}}, r"copies \(2 in the cache, 3 now\)"),
        ({"noise": {"file": str(noise), "snr": [0]}}, r"noise.snr"),
        ({**on, "speech_mask": {"max_width": 0.4, "stride": 1.0}}, "speech_mask"),
        ({**on, "feats_copies": None, "noise": None}, r"copies \(2 in the cache, none now\)"),
    ):
        with pytest.raises(FeatureCacheError, match=named):
            main(command(**changes))
    soundfile.write(noise, np.random.default_rng(1).normal(0, 0.1, 32000), 16000)
    load.cache_clear()
    with pytest.raises(FeatureCacheError, match=r"noise.file"):
        main(command(**on))


def test_fusion_gets_the_hidden_states_of_all_layers(config, dump_dir, tmp_path, tiny_whisper):
    path = config(projector_conf={"fusion": {"audio": "dci"}})
    main(["--config", path, "--modality", "audio", "--data_dir", str(dump_dir),
          "--out", str(tmp_path)])  # fmt: skip
    stored = read_all(tmp_path / f"{dump_dir.name}_audio_layers" / "feats.scp")
    frontend = WhisperFrontend(tiny_whisper)
    precomputed = PrecomputedFeatures(frontend)
    preprocess = AVSRPreprocessor(train=False)
    for line in (dump_dir / "wav.scp").read_text().splitlines():
        uid, path = line.split()
        x = torch.from_numpy(preprocess(uid, {"speech": soundfile.read(path)[0]})["speech"])[None]
        lengths = torch.tensor([x.shape[1]])
        expected, frames = frontend.layers(x, lengths)
        layers, found = precomputed.layers(torch.from_numpy(stored[uid])[None], frames)
        assert len(layers) == len(expected) > 2 and found is frames
        for one, other in zip(layers, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    with pytest.raises(ValueError, match="expected precomputed features"):
        precomputed(torch.from_numpy(stored[uid])[None], frames)
