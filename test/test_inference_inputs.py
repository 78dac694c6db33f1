"""What a recogniser refuses rather than guesses: arrays and tensors, options, data."""

import json

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_smop.bin.avsr_inference import main as avsr_inference
from espnet_smop.command import run
from espnet_smop.fileio.video import VideoFileError, read_video, write_video
from espnet_smop.inference import AVSRSpeech2Text
from espnet_smop.tasks.avsr import AVSRTask

FRAMES = 30


@pytest.fixture(scope="module")
def save(model_args, tmp_path_factory):
    """Return a function that writes an experiment of a tiny model."""

    def save(**changes):
        directory = tmp_path_factory.mktemp("exp")
        args = model_args(**changes)
        torch.manual_seed(0)
        torch.save(AVSRTask.build_model(args).state_dict(), directory / "model.pth")
        (directory / "config.yaml").write_text(yaml.safe_dump(vars(args)))
        return directory

    return save


@pytest.fixture(scope="module")
def experiment(save):
    return save()


@pytest.fixture(scope="module")
def speech2text(experiment):
    return AVSRSpeech2Text(
        experiment / "config.yaml", experiment / "model.pth", beam_size=1, max_new_tokens=3
    )


@pytest.fixture(scope="module")
def good():
    rng = np.random.default_rng(0)
    speech = (rng.normal(size=FRAMES * 640) * 0.1).astype(np.float32)
    return {"speech": speech, "video": rng.integers(0, 256, (FRAMES, 96, 96), dtype=np.uint8)}


def test_tensors_give_what_arrays_give(speech2text, good):
    expected = speech2text(**good)
    tensors = {name: torch.from_numpy(value) for name, value in good.items()}
    assert speech2text(**tensors) == expected
    assert speech2text(**{**tensors, "speech": tensors["speech"].requires_grad_()}) == expected
    assert speech2text(**{**good, "speech": good["speech"].astype(np.float64)}) == expected


WRONG = {
    "one row of samples": ("speech", lambda x: x[None], r"\(1, 19200\), expected one channel"),
    "stereo": ("speech", lambda x: np.stack([x, x], 1), r"\(19200, 2\), expected one channel"),
    "16-bit": ("speech", lambda x: (x * 32767).astype(np.int16), "int16, .* divide by 32768"),
    "64-bit integers": ("speech", lambda x: x.astype(np.int64), "is int64, expected floating"),
    "values of integers": ("speech", lambda x: x * 32768, "speech has samples up to .* -1 to 1"),
    "NaN": ("speech", lambda x: np.where(np.arange(len(x)) == 3, np.nan, x), "NaN or infinite"),
    "empty": ("speech", lambda x: x[:0], "speech has no samples"),
    "a list": ("speech", lambda x: list(x), "speech is a list, expected an array or a tensor"),
    "44.1 kHz": ("speech", lambda x: np.tile(x, 3), "3.6 s at 16000 Hz, video 1.2 s .* resample"),
    "no speech": ("speech", lambda x: None, "speech is missing.*allow_missing=True"),
    "RGB": ("video", lambda x: np.stack([x] * 3, -1), r"96, 3\), expected grey .*convert colour"),
    "channel first": ("video", lambda x: x[:, None], "squeeze the dimension of 1"),
    "one picture": ("video", lambda x: x[0], r"\(96, 96\), expected mouth crops"),
    "whole pictures": ("video", lambda x: np.tile(x, (1, 3, 4)), r"288, 384\), expected mouth cr"),
    "small pictures": ("video", lambda x: x[:, :64, :64], r"64, 64\), expected mouth crops"),
    "frames last": ("video", lambda x: x.transpose(1, 2, 0), r"\(96, 96, 30\), expected mouth"),
    "floats": ("video", lambda x: x / 255, "video is float64, expected uint8 from 0 to 255"),
    "no frames": ("video", lambda x: x[:0], "video has no frames"),
    "no video": ("video", lambda x: None, "video is missing, but the model takes it"),
}


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(speech2text, good, name, tensor):
    key, spoil, message = WRONG[name]
    wrong = spoil(good[key])
    if tensor and isinstance(wrong, np.ndarray):
        wrong = torch.from_numpy(np.ascontiguousarray(wrong))
    with pytest.raises(ValueError, match=message):
        speech2text(**{**good, key: wrong})


def test_an_input_that_the_model_does_not_take_is_refused(save, good):
    directory = save(video_frontend=None)
    asr = AVSRSpeech2Text(directory / "config.yaml", directory / "model.pth", max_new_tokens=2)
    with pytest.raises(ValueError, match="video is given, but the model has no video_frontend"):
        asr(**good)
    with pytest.raises(ValueError, match="neither speech nor video is given"):
        asr(allow_missing=True)
    assert asr(speech=good["speech"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beamsize": 3}, "no setting 'beamsize'. Did you mean 'beam_size'"),
        ({"devise": "cpu"}, "no setting 'devise'. LLMDecoder.generate takes beam_size"),
        ({"beam_size": 0}, "beam_size is 0, expected a whole number of at least 1"),
        ({"beam_size": "5"}, "beam_size is '5', expected a whole number"),
        ({"contrast": -1}, "contrast is -1, expected a number of at least 0"),
        ({"nbest": 20}, "nbest is 20, but must be between 1 and beam_size 15"),
        ({"length_penalty": None}, "length_penalty is None, expected a number"),
        ({"device": "gpu"}, "device is 'gpu', expected cpu or cuda"),
        ({"noise": {"file": "a.wav", "snrs": 0}}, "noise has an unknown key 'snrs'.*'snr'"),
        ({"noise": {"file": "absent.wav", "snr": 0}}, "noise file absent.wav does not exist"),
        ({"avsr_model_file": "absent.pth"}, "there is no checkpoint absent.pth"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(experiment, monkeypatch, options, message):
    monkeypatch.setattr(AVSRTask, "load_model", lambda *args: pytest.fail("loaded the model"))
    with pytest.raises(ValueError, match=message):
        AVSRSpeech2Text(experiment / "config.yaml", **options)


def test_a_single_modality_has_nothing_to_be_contrasted_with(save):
    config = save(video_frontend=None, video_frontend_conf={}) / "config.yaml"
    with pytest.raises(ValueError, match="contrast is 0.5, but the model takes a single modality"):
        AVSRSpeech2Text(config, contrast=0.5)


def test_from_pretrained_refuses_a_misspelt_option(experiment):
    (experiment / "valid.acc.ave.pth").unlink(missing_ok=True)
    (experiment / "model.pth").rename(experiment / "valid.acc.ave.pth")
    try:
        with pytest.raises(ValueError, match="Did you mean 'beam_size'"):
            AVSRSpeech2Text.from_pretrained(experiment, beamsize=3)
    finally:
        (experiment / "valid.acc.ave.pth").rename(experiment / "model.pth")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_wav_scp_at_another_rate_ends_decoding_in_one_line(experiment, tmp_path, capsys, workers):
    soundfile.write(tmp_path / "a.wav", np.zeros(44100), 44100)
    write_video(tmp_path / "a.mkv", np.zeros((25, 96, 96), np.uint8))
    words = ["--num_workers", workers, "--avsr_train_config", experiment / "config.yaml"]
    words += ["--avsr_model_file", experiment / "model.pth", "--output_dir", tmp_path / "out"]
    for name, suffix, form in (("speech", "wav", "sound"), ("video", "mkv", "video")):
        (tmp_path / f"{name}.scp").write_text(f"a {tmp_path}/a.{suffix}\n")
        words += ["--data_path_and_name_and_type", f"{tmp_path}/{name}.scp,{name},{form}"]
    with pytest.raises(SystemExit) as stopped:
        run(avsr_inference, [str(word) for word in words])
    expected = f"avsr_inference: {tmp_path}/a.wav is at 44100 Hz, expected 16000: "
    assert stopped.value.code.startswith(expected) and "\n" not in stopped.value.code
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_that_do_not_suit_the_model_end_decoding_before_it_is_loaded(save, dump_dir, tmp_path):
    audio = f"{dump_dir}/wav.scp,speech,sound"
    video = f"{dump_dir}/video.scp,video,video"
    for changes, data, message in (
        ({}, [audio], "the data has no 'video': add DIR/video.scp,video,video"),
        ({"video_frontend": None}, [audio, video], "video.scp is given, but the model has no vid"),
    ):
        config = save(**changes) / "config.yaml"
        words = ["--avsr_train_config", str(config), "--output_dir", str(tmp_path / "out")]
        for source in data:
            words += ["--data_path_and_name_and_type", source]
        with pytest.raises(ValueError, match=message):
            avsr_inference(words)


def test_a_video_at_another_rate_is_refused(tmp_path):
    frames = np.zeros((9, 96, 96), np.uint8)
    for rate in (25, 30):
        write_video(tmp_path / f"{rate}.mkv", frames, rate=rate)
    assert len(read_video(tmp_path / "25.mkv")) == 9
    with pytest.raises(VideoFileError, match="has 30 frames a second, expected 25"):
        read_video(tmp_path / "30.mkv")


def test_whole_pictures_are_not_taken_for_mouth_crops(model_args):
    preprocess = AVSRTask.build_preprocess_fn(model_args(), train=False)
    with pytest.raises(ValueError, match="320x240 pixels are whole pictures, not mouth crops"):
        preprocess("a", {"video": np.zeros((5, 240, 320), np.uint8)})


@pytest.mark.parametrize("kind", ["whisper", "bert"])
def test_what_is_no_causal_lm_is_no_decoder(model_args, tiny_whisper, tmp_path, kind):
    if kind == "bert":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    model = tiny_whisper if kind == "whisper" else str(tmp_path)
    with pytest.raises(RuntimeError, match=f"is a {kind} model, not a causal LM"):
        AVSRTask.build_model(model_args(decoder_conf={"model": model}))


@pytest.mark.parametrize("entry", ["load_model", "main"])
def test_the_projectors_options_are_read_before_any_weights(
    model_args, train_command, tmp_path, monkeypatch, entry
):
    from espnet_smop.decoder import llm

    def start(conf):
        if entry == "main":
            AVSRTask.main(cmd=train_command("exp", projector_conf=conf))
        (tmp_path / "config.yaml").write_text(
            yaml.safe_dump(vars(model_args(projector_conf={"hidden_size": 16, **conf})))
        )
        AVSRTask.load_model(str(tmp_path / "config.yaml"))

    monkeypatch.setattr(
        llm.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded the LLM")
    )
    for conf, message in (
        ({"routing": "jejx"}, "routing is 'jejx'"),
        ({"num_experts": 1, "top_k": 2}, "num_experts is 1, but top_k is 2"),
        ({"routng": "jejr"}, "Did you mean 'routing'"),
    ):
        with pytest.raises(ValueError, match=message):
            start(conf)


def test_the_check_draws_no_random_numbers(model_args):
    args = model_args()
    states = []
    for check in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            if check:
                AVSRTask.build_skeleton(args)
            states.append(torch.get_rng_state())
    assert torch.equal(*states)
