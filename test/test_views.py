import itertools
from collections import Counter

import pytest
import torch

from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.view_steps import Views
from espnet_smop.views import View, tasks_of

TASKS = {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}
RATES = {"audio": (4, 16), "video": (2, 5)}


def test_a_model_of_one_task_and_rate_has_one_view():
    views = Views(tasks_of(None, ["audio", "video"]))
    assert views.all == [View("avsr")] == views.next_step()
    assert views.all[0].weight == 1.0 and views.all[0].tag == "avsr"
    assert not views.state_dict()


@pytest.mark.parametrize(
    "modalities, task",
    [(["audio"], "asr"), (["video"], "vsr"), (["video", "audio"], "avsr")],
)
def test_the_default_task_uses_all_modalities(modalities, task):
    assert tasks_of(None, modalities) == {task: 1.0}


def test_a_step_has_each_task_at_one_pair_of_rates():
    views = Views(TASKS, RATES)
    for _ in range(8):
        step = {view.task: view for view in views.next_step()}
        assert {task: view.weight for task, view in step.items()} == {
            "asr": pytest.approx(1 / 3), "vsr": 0.5, "avsr": pytest.approx(1 / 3),
        }  # fmt: skip
        rates = step["avsr"].rates
        assert step["asr"].rates == {"audio": rates["audio"]}
        assert step["vsr"].rates == {"video": rates["video"]}


def test_pairs_come_equally_often_and_in_varying_order():
    views = Views({"avsr": 1.0}, RATES)
    pairs = [views.next_step()[0].rates_tag for _ in range(4 * 50)]
    counted = Counter(pairs)
    assert set(counted.values()) == {50}
    assert set(counted) == {f"a{a}_v{v}" for a, v in itertools.product((4, 16), (2, 5))}
    rounds = {tuple(pairs[i : i + 4]) for i in range(0, 200, 4)}
    assert len(rounds) > 15  # of 24


def test_all_processes_and_a_resumed_training_have_the_same_pairs():
    first = Views(TASKS, RATES)
    for _ in range(3):
        torch.rand(3)  # independent of the state of the random numbers
        first.next_step()
    second = Views(TASKS, RATES)
    second.load_state_dict(first.state_dict())
    assert [first.next_step() for _ in range(9)] == [second.next_step() for _ in range(9)]


def test_all_pairs_have_the_mean_of_the_steps():
    sampled, together = Views(TASKS, RATES), Views(TASKS, RATES, "all")
    assert not together.state_dict()
    views = together.next_step()
    assert [v.tag for v in views] == [
        "asr_a4", "vsr_v2", "avsr_a4_v2", "asr_a16", "avsr_a16_v2", "vsr_v5", "avsr_a4_v5",
        "avsr_a16_v5",
    ]  # fmt: skip
    value = dict(zip(views, torch.randn(8).tolist(), strict=True))
    mean = sum(v.weight * value[v] for step in sampled.steps for v in step) / 4
    assert sum(v.weight * value[v] for v in views) == pytest.approx(mean)
    assert sampled.all == views  # of validation
    assert [v.weight for v in sampled.all] == [v.weight for v in views]


def test_the_pairs_of_llama_mtsk_in_its_order():
    views = Views({"avsr": 1.0}, RATES, "all")
    assert [tuple(v.rates.values()) for v in views.all] == [(4, 2), (16, 2), (4, 5), (16, 5)]
    assert [v.weight for v in views.all] == [0.25] * 4


def test_views_are_found_by_task_and_rates():
    views = Views(TASKS, RATES)
    assert views.find().tag == "avsr_a4_v2"
    assert views.find("vsr").tag == "vsr_v2"
    assert views.find("vsr", {"video": 5}).tag == "vsr_v5"
    assert views.find(rates={"video": 5}).tag == "avsr_a4_v5"
    with pytest.raises(ValueError, match=r"no rates video=3 for vsr; it has: video=2, video=5"):
        views.find("vsr", {"video": 3})
    with pytest.raises(ValueError, match=r"rates has audio=4, but the task vsr takes video"):
        views.find("vsr", {"audio": 4})
    with pytest.raises(ValueError, match=r"task is 'asr', but the model has vsr"):
        Views({"vsr": 1.0}).find("asr")
    with pytest.raises(ValueError, match=r"no rates video=2 for vsr; it has: a single rate"):
        Views({"vsr": 1.0}).find("vsr", {"video": 2})


@pytest.mark.parametrize(
    "conf, message",
    [
        ({"tasks": {"sar": 1.0}}, "tasks has 'sar', expected one of asr, vsr, avsr"),
        ({"tasks": {"asr": 0}}, "tasks.asr is 0, expected a weight above 0"),
        ({"tasks": []}, r"tasks is \[\], expected task: weight"),
        ({"rate_pairs": "some"}, "rate_pairs is 'some', expected sample or all"),
    ],
)
def test_wrong_settings_are_named(model_args, conf, message):
    with pytest.raises(ValueError, match=message):
        AVSRTask.build_model(model_args(model_conf=conf))


def test_a_task_needs_its_frontend(model_args):
    with pytest.raises(ValueError, match="tasks has 'avsr', but the model has no video_frontend"):
        AVSRTask.build_model(model_args(video_frontend=None, model_conf={"tasks": {"avsr": 1.0}}))
