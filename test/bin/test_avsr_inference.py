import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_smop.bin.avsr_inference import get_parser, main
from espnet_smop.command import run
from espnet_smop.decoder import merged_lora
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import read_video
from espnet_smop.inference import AVSRSpeech2Text
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.tasks.avsr import AVSRTask


@pytest.fixture
def experiment(model_args, tmp_path):
    args = model_args()
    torch.manual_seed(0)
    model = AVSRTask.build_model(args)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    return tmp_path


def arguments(experiment, dump_dir, output, *more):
    return [
        *("--avsr_train_config", str(experiment / "config.yaml")),
        *("--avsr_model_file", str(experiment / "model.pth")),
        *("--data_path_and_name_and_type", f"{dump_dir}/wav.scp,speech,sound"),
        *("--data_path_and_name_and_type", f"{dump_dir}/video.scp,video,video"),
        *("--output_dir", str(output), "--num_workers", "0", "--max_new_tokens", "10"),
        *more,
    ]


def read(directory: Path) -> dict[str, dict[str, str]]:
    files = {}
    for path in directory.iterdir():
        pairs = (line.rstrip("\n").partition(" ") for line in path.open())
        files[path.name] = {key: value for key, _, value in pairs}
    return files


@pytest.fixture
def noise(tmp_path):
    path = tmp_path / "n.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=32000) * 0.1, 16000)
    return ("--noise", str(path))


@pytest.mark.parametrize("noisy", [False, True])
def test_the_batch_size_does_not_matter(experiment, dump_dir, tmp_path, noise, noisy):
    more = (*noise, "--snr", "0") if noisy else ()
    results = []
    for size in (1, 8):
        output = tmp_path / f"batch {size}"
        words = ("--beam_size", "3", "--nbest", "2", "--batch_size", str(size), *more)
        main(arguments(experiment, dump_dir, output, *words))
        results.append([read(output / f"{n}best_recog") for n in (1, 2)])
        assert not list(tmp_path.glob(".*"))
    for n in range(2):
        one, eight = (r[n] for r in results)
        assert set(one) == {"text", "token", "token_int", "score"}
        assert len(one["text"]) == 12
        for name in ("text", "token", "token_int"):
            assert one[name] == eight[name]
        for uid, score in one["score"].items():
            assert float(score) == pytest.approx(float(eight["score"][uid]), abs=1e-4)
    first, second = (results[0][n]["score"] for n in range(2))
    assert all(float(first[uid]) >= float(second[uid]) for uid in first)


@pytest.mark.parametrize(
    "more", [(), ("--contrast", "0.5"), ("--task", "asr", "--rates", "audio=4")]
)
def test_levels_together_are_as_each_alone(
    experiment, of_all_tasks, dump_dir, tmp_path, noise, more
):
    def run(name, *levels):
        model = of_all_tasks if "--task" in more else experiment
        settings = ("--beam_size", "3", "--nbest", "2", "--batch_size", "5", *more)
        words = arguments(model, dump_dir, tmp_path / name, *settings, *noise, "--snr", *levels)
        main(of_task(words, ["audio"] if "--task" in more else ["audio", "video"]))

    levels = {"clean": "none", "snr5": "5", "snr-2.50": "-2.50"}
    run("all", *levels.values())
    scores = set()
    for name, level in levels.items():
        run(name, level)
        alone, together = tmp_path / name, tmp_path / "all" / name
        for n in (1, 2):
            files = sorted(p.name for p in (together / f"{n}best_recog").iterdir())
            assert files == ["score", "text", "token", "token_int"]
            for file in files:
                path = f"{n}best_recog/{file}"
                assert (together / path).read_bytes() == (alone / path).read_bytes()
        scores.add((alone / "1best_recog/score").read_text())
        a, b = DecodingCosts.read(alone), DecodingCosts.read(together)
        assert a.decoding_seconds > 0 and b.decoding_seconds > 0
        changing = {"decoding_seconds": 0, "peak_memory_mib": 0}
        assert dataclasses.replace(a, **changing) == dataclasses.replace(b, **changing)
    assert len(scores) == 3
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == sorted(levels)


def test_levels_share_the_video_and_are_counted(
    experiment, dump_dir, tmp_path, noise, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    encoded, merged = [], []
    encode, merge = ESPnetAVSRModel.encode, merged_lora._merge
    monkeypatch.setattr(merged_lora, "_merge", lambda *args: merged.append(args[0]) or merge(*args))
    monkeypatch.setattr(
        ESPnetAVSRModel, "encode",
        lambda self, *inputs, modalities, **options: encoded.extend(modalities)
        or encode(self, *inputs, modalities=modalities, **options),
    )  # fmt: skip
    out = tmp_path / "out"
    words = arguments(experiment, dump_dir, out, "--beam_size", "1", *noise)
    main([*words, "--snr", "clean", "0", "5"])
    assert encoded == 2 * ["audio", "video", "audio", "audio"]  # batches of 8 and 4
    assert len(merged) == len(set(merged)) > 0  # each layer's adapters once
    messages = [record.getMessage() for record in caplog.records]
    done = [m.split(",")[0] for m in messages if " utterances at 3 noise levels" in m]
    assert [int(m.split()[0]) for m in done] == [8, 16, 24, 28, 32, 36]
    assert done[-1] == "36 of 36 utterances at 3 noise levels"
    assert [m.split(":")[0] for m in messages if ": RTF: " in m] == ["clean", "snr0", "snr5"]
    for start, end in (("speech length: ", 6), ("best hypo: ", 6)):
        assert sum(m.startswith(start) for m in messages) == end

    # An earlier output is replaced, whatever its levels.
    main([*words, "--snr", "5"])
    assert sorted(p.name for p in out.iterdir()) == ["1best_recog", "costs.json"]
    main([*words, "--snr", "5", "0"])
    assert sorted(p.name for p in out.iterdir()) == ["snr0", "snr5"]
    main([*words, "--snr", "clean", "-5"])
    assert sorted(p.name for p in out.iterdir()) == ["clean", "snr-5"]


@pytest.mark.parametrize("contrast", [None, 1.5])
def test_speech2text_gives_what_the_command_writes(experiment, dump_dir, tmp_path, contrast):
    more = [] if contrast is None else ["--contrast", str(contrast)]
    main(arguments(experiment, dump_dir, tmp_path / "out", "--beam_size", "2", *more))
    texts = read(tmp_path / "out" / "1best_recog")
    speech2text = AVSRSpeech2Text(
        experiment / "config.yaml", experiment / "model.pth",
        beam_size=2, nbest=1, length_penalty=0.0, max_new_tokens=10,
        **({} if contrast is None else {"contrast": contrast}),
    )  # fmt: skip
    scps = [read_table(dump_dir / name) for name in ("wav.scp", "video.scp")]
    uid = min(scps[0])
    [(text, tokens, ids, score)] = speech2text(
        speech=soundfile.read(scps[0][uid])[0], video=read_video(scps[1][uid])
    )
    assert text == texts["text"][uid]
    assert " ".join(tokens) == texts["token"][uid]
    assert " ".join(map(str, ids)) == texts["token_int"][uid]
    assert score == pytest.approx(float(texts["score"][uid]), abs=1e-5)


def test_the_log_has_the_lines_that_espnet_measures_rtf_with(
    experiment, dump_dir, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    main(arguments(experiment, dump_dir, tmp_path / "out", "--beam_size", "1"))
    messages = [record.getMessage() for record in caplog.records]
    starts = [m for m in messages if m.startswith("speech length: ")]
    ends = [m for m in messages if m.startswith("best hypo")]
    assert len(starts) == len(ends) == 2  # batches of 8 and 4
    samples = sum(map(int, read_table(dump_dir / "utt2num_samples").values()))
    assert sum(int(m.split()[-1]) for m in starts) == samples
    assert any(m.startswith("RTF: ") for m in messages)
    assert any("reached max_new_tokens" in m for m in messages)  # a random model never stops


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--snr", "0"), "--snr needs --noise"),
        (("--snr", "clean", "0"), "--snr needs --noise"),
        (("--noise", "none.wav", "--snr", "clean", "0"), "none.wav does not exist"),
        (("--noise", "none.wav", "--snr", "0", "5", "0"), "--snr has 0 twice"),
        (("--noise", "none.wav", "--snr", "0"), "none.wav does not exist"),
        (("--noise", "none.wav"), "--noise needs --snr"),
        (("--key_file", "DIR/keys"), "wav.scp lacks 1 of the 2 ids in"),
        (("--avsr_model_file", "none.pth"), "none.pth"),
    ],
)
def test_mistakes_end_in_one_line(experiment, dump_dir, tmp_path, more, message, capsys):
    uid = min(read_table(dump_dir / "wav.scp"))
    (tmp_path / "keys").write_text(f"{uid}\nabsent\n")
    more = [word.replace("DIR", str(tmp_path)) for word in more]
    with pytest.raises(SystemExit) as stopped:
        run(main, arguments(experiment, dump_dir, tmp_path / "out", *more))
    assert stopped.value.code.startswith("avsr_inference: ") and message in stopped.value.code
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_gpu_it_says_so_at_once(experiment, dump_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        ValueError, match="--ngpu 1, but only 0 GPUs are visible. Check .* --ngpu 0"
    ):
        main(arguments(experiment, dump_dir, tmp_path / "out", "--ngpu", "1"))


def test_zero_decibel_is_not_clean():
    required = ["--output_dir", "o", "--data_path_and_name_and_type", "a,b,c"]
    required += ["--avsr_train_config", "c"]
    parse = get_parser().parse_args
    assert parse([*required, "--snr", "0"]).snr == [("snr0", 0.0)]
    assert parse([*required, "--snr", "-5"]).snr == [("snr-5", -5.0)]
    assert parse([*required, "--snr", "clean"]).snr == [("clean", None)]
    assert parse([*required, "--snr", "none", "2.5"]).snr == [("clean", None), ("snr2.5", 2.5)]


@pytest.mark.parametrize(
    ("snr", "decoded"),
    [("-5", ["1best_recog", "costs.json"]), ("clean", ["1best_recog", "costs.json"]),
     ("[clean, -5]", ["clean", "snr-5"])],
)  # fmt: skip
def test_a_config_names_levels(experiment, dump_dir, tmp_path, noise, snr, decoded):
    (tmp_path / "decode.yaml").write_text(f"snr: {snr}\nbeam_size: 1\n")
    words = ("--config", str(tmp_path / "decode.yaml"), *noise)
    main(arguments(experiment, dump_dir, tmp_path / "out", *words))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == decoded


def test_the_experiment_says_how_it_is_decoded_unless_told_otherwise(
    experiment, dump_dir, tmp_path, monkeypatch
):
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    config["inference_conf"] = {"beam_size": 3, "length_penalty": 1.0}
    (experiment / "config.yaml").write_text(yaml.safe_dump(config))
    seen = []
    monkeypatch.setattr(
        AVSRSpeech2Text, "search", lambda self, encoded: seen.append(self.generation) or 1 / 0
    )
    for more in ((), ("--beam_size", "2")):
        with pytest.raises(ZeroDivisionError):
            main(arguments(experiment, dump_dir, tmp_path / "out", *more))
    told, asked = seen
    assert told == {"beam_size": 3, "length_penalty": 1.0, "nbest": 1, "max_new_tokens": 10}
    assert asked == {**told, "beam_size": 2}


def test_decoding_writes_what_it_took(experiment, dump_dir, tmp_path):
    main(arguments(experiment, dump_dir, tmp_path / "out", "--beam_size", "1"))
    costs = DecodingCosts.read(tmp_path / "out")
    assert costs.utterances == 12
    samples = sum(map(int, read_table(dump_dir / "utt2num_samples").values()))
    assert costs.speech_seconds == pytest.approx(samples / 16000)
    assert costs.rtf > 0
    assert costs.peak_memory_mib > 50  # Python alone takes more
    assert costs.memory_of == "process"


@pytest.fixture
def of_all_tasks(model_args, tmp_path):
    """An experiment of three tasks, at two rates of each modality, with LoRA for each task."""
    conf = model_args().decoder_conf
    rates = {"mode": "avgpool", "audio": [4, 16], "video": [2, 5]}
    args = model_args(
        model_conf={"tasks": {"asr": 1.0, "vsr": 1.0, "avsr": 1.0}, "rate_pairs": "sample"},
        projector_conf={"hidden_size": 16, "downsample": rates, "per_rate": True},
        decoder_conf={**conf, "lora": {"r": 2, "per": "task", "shared": True}},
    )
    torch.manual_seed(0)
    model = AVSRTask.build_model(args)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    directory = tmp_path / "all tasks"
    directory.mkdir()
    (directory / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), directory / "model.pth")
    return directory


def of_task(arguments, modalities):
    """Leave out the data of other modalities."""
    others = {"audio": "wav.scp", "video": "video.scp"}
    others = [file for modality, file in others.items() if modality not in modalities]
    words = list(arguments)
    for file in others:
        [place] = [i for i, word in enumerate(words) if file in word]
        del words[place - 1 : place + 1]
    return words


def test_tasks_and_rates_are_chosen(of_all_tasks, dump_dir, tmp_path):
    texts, tokens = {}, {}
    for task, rates in (
        ("asr", "audio=4"), ("asr", "audio=16"), ("vsr", "video=5"), (None, "video=5"),
        ("avsr", "audio=16,video=5"), (None, None),
    ):  # fmt: skip
        out = tmp_path / f"{task} {rates}"
        more = [*(("--task", task) if task else ()), *(("--rates", rates) if rates else ())]
        words = arguments(of_all_tasks, dump_dir, out, "--beam_size", "2", *more)
        modalities = {"asr": ["audio"], "vsr": ["video"]}.get(task, ["audio", "video"])
        main(of_task(words, modalities))
        decoded = read(out / "1best_recog")["token_int"]
        texts[task, rates] = tuple(sorted(decoded.items()))
        costs = DecodingCosts.read(out)
        assert costs.task == (task or "avsr")
        tokens[task, rates] = costs.media_tokens
        if (task, rates) == ("asr", "audio=16"):
            assert costs.rates == {"audio": 16}
        chosen = AVSRSpeech2Text(
            of_all_tasks / "config.yaml", of_all_tasks / "model.pth", beam_size=2,
            max_new_tokens=10, task=task, rates=costs.rates,
        )  # fmt: skip
        uid = min(read_table(dump_dir / "wav.scp"))
        given = {
            "speech": soundfile.read(dump_dir / f"{uid}.flac", dtype="float32")[0],
            "video": read_video(dump_dir / f"{uid}.mkv"),
        }
        given = {n: x for n, x in given.items() if {"speech": "audio"}.get(n, n) in modalities}
        [(_, _, ids, _), *_] = chosen(**given, uid=uid)
        assert " ".join(map(str, ids)) == decoded[uid]
    assert len(set(texts.values())) == len(texts)
    frames = list(map(int, read_table(dump_dir / "utt2num_frames").values()))
    assert tokens["vsr", "video=5"] == sum(-(-n // 5) for n in frames)
    assert tokens["asr", "audio=16"] == sum(-(-2 * n // 16) for n in frames)
    both = sum(-(-2 * n // 4) for n in frames) + sum(-(-n // 5) for n in frames)
    assert tokens[None, "video=5"] == both
    assert tokens[None, None] == both - tokens["vsr", "video=5"] + sum(-(-n // 2) for n in frames)


def test_a_missing_input_means_the_task_without_it(of_all_tasks):
    whole = AVSRSpeech2Text(
        of_all_tasks / "config.yaml", of_all_tasks / "model.pth", beam_size=2, max_new_tokens=8,
        rates="video=5",
    )  # fmt: skip
    video = np.random.default_rng(0).integers(0, 255, (20, 96, 96), dtype=np.uint8)
    found = whole(video=video, allow_missing=True)
    whole.view = whole.model.views.find("vsr", {"video": 5})
    assert found == whole(video=video)
    whole.view = whole.model.views.find("vsr", {"video": 2})
    assert found != whole(video=video)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--task", "vsr", "--rates", "video=3"), "no rates video=3 for vsr; it has: video=2, "),
        (("--task", "vsr", "--rates", "audio=4"), "rates has audio=4, but the task vsr takes vid"),
        (("--rates", "video:3"), "rates 'video:3': expected audio=4,video=2, or one of them"),
    ],
)
def test_wrong_tasks_and_rates_are_named(of_all_tasks, dump_dir, tmp_path, more, message, capsys):
    words = of_task(arguments(of_all_tasks, dump_dir, tmp_path / "out", *more), ["video"])
    with pytest.raises(SystemExit) as stopped:
        run(main, words)
    assert message in f"{stopped.value.code} {capsys.readouterr().err}"


def test_a_model_of_one_task_has_no_other(experiment, dump_dir, tmp_path):
    with pytest.raises(ValueError, match="task is 'vsr', but the model has avsr"):
        main(arguments(experiment, dump_dir, tmp_path / "out", "--task", "vsr"))


def test_on_the_cpu_it_is_float32_also_beside_a_gpu(experiment, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model, _ = AVSRTask.load_model(str(experiment / "config.yaml"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
