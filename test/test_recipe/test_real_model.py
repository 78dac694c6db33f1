"""The trained model that the recipe of real speech keeps."""

import hashlib
import re
from pathlib import Path

import pytest
import soundfile
import yaml
from safetensors.torch import load_file

from espnet_smop.checkpoint.package import open_package
from espnet_smop.inference import AVSRSpeech2Text, Transcriber

RECIPE = Path(__file__).resolve().parents[2] / "egs2/real_speech/avsr_smop1"
MODEL = RECIPE / "model/smop4_night.zip"


def test_it_is_small_and_the_one_that_the_card_describes():
    assert MODEL.stat().st_size < 12e6
    text = (MODEL.parent / "README.md").read_text()
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() in text


def test_its_settings_are_those_of_the_config():
    with open_package(MODEL) as package:
        config = yaml.safe_load((package / "config.yaml").read_text())
        weights = load_file(package / "model.safetensors")
    wanted = yaml.safe_load((RECIPE / "conf/train_asr_smop4.yaml").read_text())["projector_conf"]
    assert {key: config["projector_conf"][key] for key in wanted} == wanted
    assert not re.search("/tmp|/home|/root", str(config))
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.long
def test_it_recognises_a_recording():
    sound = Path("/usr/share/sounds/alsa/Front_Left.wav")
    if not sound.is_file() or not (RECIPE / "downloads/smollm2-135m").is_dir():
        pytest.skip("needs Debian's alsa-utils, and stage 6 of egs2/real_speech/avsr_smop1")
    bases = {"whisper": "whisper_base", "llm": "smollm2-135m"}
    bases = {name: str(RECIPE / "downloads" / base) for name, base in bases.items()}
    transcriber = Transcriber(AVSRSpeech2Text.from_pretrained(MODEL, **bases))
    assert soundfile.info(sound).duration < 2
    [segment] = transcriber(sound, warn=print)
    assert segment.text == "front left"
