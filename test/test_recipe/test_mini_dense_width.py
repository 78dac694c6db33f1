"""Dense projectors of the mini recipe that are as large as a mixture."""

import sys
from pathlib import Path

import pytest

from espnet_smop.config import load_config

MINI = Path(__file__).resolve().parents[2] / "egs2" / "mini_lrs3" / "avsr_smop1"


@pytest.fixture(scope="module")
def dense_width():
    sys.path.insert(0, str(MINI / "local"))
    import dense_width

    yield dense_width
    sys.path.remove(str(MINI / "local"))


@pytest.mark.parametrize("parameters", ["active", "total"])
def test_configs_are_as_large_as_smop3_dedr(dense_width, parameters):
    def size(name):
        config = MINI / "conf" / f"train_avsr_{name}.yaml"
        hidden_size = load_config(config)["projector_conf"]["hidden_size"]
        return dense_width.projector_size(config, hidden_size, parameters)

    fits = dense_width.dense_widths(
        MINI / "conf" / "train_avsr_smop3_dedr.yaml", MINI / "conf" / "train_avsr_llama_avsr.yaml",
        [load_config(MINI / "conf" / "train_base.yaml")["projector_conf"]["hidden_size"]],
        parameters,
    )  # fmt: skip
    assert size(f"llama_avsr_{parameters}") == pytest.approx(size("smop3_dedr"), rel=0.01), (
        f"hidden_size in conf/train_avsr_llama_avsr_{parameters}.yaml: {fits}"
    )


def test_no_other_width_is_nearer(dense_width):
    mixture, dense = (MINI / "conf" / f"train_avsr_{x}.yaml" for x in ("smop4_dedr", "llama_avsr"))
    for width, found in dense_width.dense_widths(mixture, dense, [8, 100], "active").items():
        goal = dense_width.projector_size(mixture, width, "active")
        sizes = {
            h: dense_width.projector_size(dense, h, "active") for h in range(found - 1, found + 2)
        }
        assert min(sizes, key=lambda h: abs(sizes[h] - goal)) == found
        assert found > 2 * width  # two experts and a router


def test_sizes_are_those_of_the_layers(dense_width):
    sizes = {"audio": 4, "video": 2}  # stacked frames
    widths = {
        name: dense_width.load_config(MINI / "base_models" / name / "config.json")
        for name in ("whisper", "avhubert", "llm")
    }
    features = {
        "audio": widths["whisper"]["d_model"], "video": widths["avhubert"]["encoder_embed_dim"],
    }  # fmt: skip
    out = widths["llm"]["hidden_size"]
    expected = sum(
        (sizes[m] * features[m] + 1) * 7 + (7 + 1) * out + 2 * out for m in ("audio", "video")
    )  # Linear, Linear, LayerNorm
    dense = MINI / "conf" / "train_avsr_llama_avsr.yaml"
    assert dense_width.projector_size(dense, 7, "total") == expected
