"""Models built for their shapes: sizes as published, and the same as with weights."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration

from espnet_smop.base_model import BaseModelError
from espnet_smop.frontend.avhubert import AVHuBERTFrontend, AVHuBERTModel
from espnet_smop.skeleton import published_config, skeleton
from espnet_smop.tasks.avsr import AVSRTask, trained_table

GOLDEN = Path(__file__).parent / "golden"


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


# Numbers of parameters as the models' own pages and papers give them.
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("openai/whisper-tiny", 37_760_640),
        ("openai/whisper-base", 72_593_920),
        ("openai/whisper-small", 241_734_912),
        ("openai/whisper-medium", 763_857_920),
        ("openai/whisper-large-v2", 1_543_304_960),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Llama-2-13b-hf", 13_015_864_320),
        ("TinyLlama/TinyLlama_v1.1", 1_100_048_384),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ],
)
def test_published_sizes(model, parameters):
    config = published_config(model)
    with torch.device("meta"):
        if config.model_type == "whisper":
            built = WhisperForConditionalGeneration(config)
        else:
            built = AutoModelForCausalLM.from_config(config)
    assert count(built) == parameters


def test_avhubert_large_has_the_published_shapes(tmp_path):
    golden = json.loads((GOLDEN / "avhubert_large_keys.json").read_text())["large_vox_iter5"]
    directory = skeleton("downloads/avhubert_large_lrs3_vox", tmp_path)
    with torch.device("meta"):
        built = AVHuBERTModel.from_pretrained(directory)
    wanted = golden["state_dict"]
    found = {name: list(p.shape) for name, p in built.named_parameters()}
    assert found.items() <= wanted.items()


def test_a_model_has_the_same_shapes_with_and_without_weights(model_args):
    args = model_args()
    real = AVSRTask.build_model(model_args())
    with torch.device("meta"):
        shapes = AVSRTask.build_model(args)
    assert {p.device.type for p in shapes.parameters()} == {"meta"}
    assert {n: (p.shape, p.dtype, p.requires_grad) for n, p in shapes.named_parameters()} == {
        n: (p.shape, p.dtype, p.requires_grad) for n, p in real.named_parameters()
    }
    assert trained_table(shapes) == trained_table(real)
    assert shapes.state_dict().keys() == real.state_dict().keys()


def test_directories_are_taken_as_they_are_and_unknown_names_refused(tmp_path, tiny_avhubert):
    assert skeleton(tiny_avhubert, tmp_path) == Path(tiny_avhubert)
    with pytest.raises(BaseModelError, match="'someone/model' are not known here"):
        skeleton("someone/model", tmp_path)


def test_weights_are_still_wanted_elsewhere(tmp_path):
    directory = skeleton("avhubert_large", tmp_path)
    with pytest.raises(BaseModelError, match=r"no model\.safetensors"):
        AVHuBERTFrontend(str(directory))
