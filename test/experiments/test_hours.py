"""Estimates of hours from operations."""

from pathlib import Path

import pytest

from espnet_smop.experiments.hours import Machine, read_machine

CONF = Path(__file__).parents[2] / "egs2/lrs3/avsr_smop1/conf"


def test_hours():
    machine = Machine(gpu="G", count=2, tflops=100, share=0.25, measured="here")
    assert machine.hours(50e12 * 3600) == pytest.approx(1)
    assert str(machine) == "2 x G at 25 % of 100 TFLOP/s"


def test_every_machine_of_the_recipe_is_described():
    names = [path.stem for path in (CONF / "machine").glob("*.yaml")]
    assert len(names) == 3
    for name in names:
        assert read_machine(CONF / "gpus.yaml", name).count == int(name.split("x")[0])
    assert read_machine(CONF / "gpus.yaml", "other") is None
    assert read_machine(CONF / "nothing.yaml", "other") is None


@pytest.mark.parametrize(
    "text",
    [
        "{share_of_peak: 0.2, share_measured: x, machines: {m: {gpu: G, count: 1}}}",
        "{share_of_peak: 0, share_measured: x, machines: {m: {gpu: G, count: 1, tflops: 9}}}",
        "{share_measured: x, machines: {m: {gpu: G, count: 1, tflops: 9}}}",
        "machines: [m]",
        "[",
    ],
)
def test_mistakes_are_explained(tmp_path, text):
    (tmp_path / "gpus.yaml").write_text(text)
    with pytest.raises(ValueError, match="gpus.yaml: expected share_of_peak"):
        read_machine(tmp_path / "gpus.yaml", "m")
