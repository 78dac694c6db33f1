import re

import pytest
import yaml

from espnet_smop.config import ConfigError, load_config, merge, modalities_of


@pytest.fixture
def write(tmp_path):
    """A function that writes a config below a directory whose name has a space."""

    def write(name, **settings):
        path = tmp_path / "a conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


def test_a_config_without_base_is_read_as_it_is(write):
    settings = {"optim": "adamw", "optim_conf": {"lr": 0.1}, "video_frontend": None}
    assert load_config(write("train.yaml", **settings)) == settings


def test_mappings_merge_and_everything_else_replaces(write):
    write(
        "base.yaml",
        projector_conf={"hidden_size": 384, "downsample": {"mode": "stack", "audio": 3}},
        best_model_criterion=[["valid", "acc", "max"]],
        max_epoch=8,
        grad_clip=10,
    )
    path = write(
        "tuning/train.yaml",
        base="../base.yaml",
        projector_conf={"downsample": {"audio": 2}, "fusion": {"video": "dci"}},
        best_model_criterion=[["train", "loss", "min"]],
        grad_clip=None,
    )
    assert load_config(path) == {
        "projector_conf": {
            "hidden_size": 384,
            "downsample": {"mode": "stack", "audio": 2},
            "fusion": {"video": "dci"},
        },
        "best_model_criterion": [["train", "loss", "min"]],
        "max_epoch": 8,
        "grad_clip": None,
    }


@pytest.mark.parametrize(
    ("name", "conf", "expected"),
    [
        ("warmuplr", {"warmup_steps": 5}, {"warmup_steps": 5}),
        ("cosine", {"warmup_steps": 5}, {"warmup_steps": 5, "max_lr": 0.1}),
        (None, None, None),
    ],
)
def test_another_class_does_not_get_the_arguments_of_the_bases_class(write, name, conf, expected):
    write("base.yaml", scheduler="cosine", scheduler_conf={"max_lr": 0.1, "warmup_steps": 1})
    above = {"base": "base.yaml", "scheduler": name} | ({"scheduler_conf": conf} if conf else {})
    assert load_config(write("train.yaml", **above)).get("scheduler_conf") == expected


def test_a_class_of_ones_own_does_not_get_the_arguments_of_the_default(write):
    write("base.yaml", projector_conf={"hidden_size": 8}, max_epoch=1)
    conf = {"tokens_per_second": 3}
    own = write("own.yaml", base="base.yaml", projector="mine:Mine", projector_conf=conf)
    assert load_config(own)["projector_conf"] == conf
    # A registered class may share them with the default.
    mlp = write("mlp.yaml", base="base.yaml", projector="mlp")
    assert load_config(mlp)["projector_conf"] == {"hidden_size": 8}
    more = write("more.yaml", base="own.yaml", projector_conf={"depth": 2})
    assert load_config(more)["projector_conf"] == conf | {"depth": 2}


def test_later_bases_lie_over_earlier_ones_and_bases_have_bases(write):
    write("root.yaml", seed=0, max_epoch=1, decoder_conf={"model": "small", "prompt": "P"})
    write("task.yaml", base="root.yaml", max_epoch=2)
    write("llm.yaml", decoder_conf={"model": "large"})
    path = write("train.yaml", base=["task.yaml", "llm.yaml"], seed=3)
    assert load_config(path) == {
        "seed": 3,
        "max_epoch": 2,
        "decoder_conf": {"model": "large", "prompt": "P"},
    }


def test_merging_changes_neither_side():
    below, above = {"a_conf": {"x": [1]}}, {"a_conf": {"y": 2}}
    merged = merge(below, above)
    merged["a_conf"]["x"].append(9)
    assert (below, above) == ({"a_conf": {"x": [1]}}, {"a_conf": {"y": 2}})


def test_mistakes_are_named(write, tmp_path):
    missing = write("missing.yaml", base="absent.yaml")
    with pytest.raises(ConfigError, match=r"absent.yaml, the base of .*missing.yaml,.* not exist"):
        load_config(missing)
    with pytest.raises(ConfigError, match="none.yaml does not exist"):
        load_config(tmp_path / "none.yaml")
    write("a.yaml", base="b.yaml")
    with pytest.raises(ConfigError, match=r"own base: .*a.yaml -> .*b.yaml -> .*a.yaml"):
        load_config(write("b.yaml", base="a.yaml").with_name("a.yaml"))
    with pytest.raises(ConfigError, match=re.escape("not {'a': 1}")):
        load_config(write("c.yaml", base={"a": 1}))
    for text, message in (("- 1\n", "not a mapping"), ("a: [1\n", "not YAML")):
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(path)


@pytest.mark.parametrize(
    ("settings", "arguments", "expected"),
    [
        ({"audio_frontend": "whisper", "video_frontend": None}, [], ["audio"]),
        ({"audio_frontend": None}, [], ["video"]),
        ({"max_epoch": 3}, [], ["audio", "video"]),
        ({"max_epoch": 3}, ["--video_frontend", "null", "--max_epoch", "5"], ["audio"]),
        ({"audio_frontend": None}, ["--audio_frontend", "whisper"], ["audio", "video"]),
    ],
)
def test_frontends_decide_the_modalities(write, settings, arguments, expected):
    write("base.yaml", **settings)
    assert modalities_of(write("c.yaml", base="base.yaml"), arguments) == expected


def test_no_frontend_is_an_error(write):
    path = write("c.yaml", audio_frontend=None, video_frontend=None)
    with pytest.raises(ConfigError, match="neither audio_frontend nor video_frontend"):
        modalities_of(path)
