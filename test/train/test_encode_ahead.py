import threading

import pytest
import torch

from espnet_smop.frontend.precomputed import PrecomputedFeatures
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.encode_ahead import EncodeAhead, has_fixed_features

BATCHES = [([f"u{i}"], {"speech": torch.tensor([i])}) for i in range(5)]


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def doubled(batch):
    return batch | {"speech": 2 * batch["speech"]}


@pytest.mark.parametrize("count", [0, 1, 5])
def test_batches_come_in_order_with_features(count):
    ahead = EncodeAhead(BATCHES[:count], doubled)
    assert len(ahead) == count
    assert [(keys, dict(batch)) for keys, batch in ahead] == [
        ([f"u{i}"], {"speech": 2 * i}) for i in range(count)
    ]
    assert torch.get_num_threads() == 2


def test_the_next_batch_is_encoded_while_this_one_is_used():
    begun = [threading.Event() for _ in BATCHES]

    def encode(batch):
        begun[int(batch["speech"])].set()
        assert torch.get_num_threads() == 1
        return batch

    for i, _ in enumerate(EncodeAhead(BATCHES, encode)):
        assert torch.get_num_threads() == 1
        if i + 1 < len(BATCHES):
            assert begun[i + 1].wait(timeout=30)
        assert not any(event.is_set() for event in begun[i + 2 :])


def test_an_error_of_the_encoder_ends_the_epoch():
    def encode(batch):
        if batch["speech"] == 2:
            raise ValueError("bad speech")
        return batch

    seen = []
    with pytest.raises(ValueError, match="bad speech"):
        seen.extend(keys for keys, _ in EncodeAhead(BATCHES, encode))
    assert seen == [["u0"], ["u1"]]
    assert torch.get_num_threads() == 2


def test_an_epoch_that_is_left_early_gives_the_threads_back():
    for _ in EncodeAhead(BATCHES, doubled):
        break
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_training_gives_the_parameters_of_training_without(train_command, tmp_path, monkeypatch):
    encoded = []
    original = EncodeAhead.__iter__
    monkeypatch.setattr(
        EncodeAhead, "__iter__", lambda self: encoded.append(len(self)) or original(self)
    )
    for name, threads in (("ahead", 2), ("without", 1)):
        torch.set_num_threads(threads)
        AVSRTask.main(cmd=train_command(name, max_epoch=2))
        assert (len(encoded) == 2) and all(encoded)
    ahead, without = (
        torch.load(tmp_path / name / "2epoch.pth", weights_only=True)
        for name in ("ahead", "without")
    )
    assert all(torch.allclose(ahead[k], without[k], atol=1e-6) for k in without)


@pytest.mark.parametrize(
    ("changes", "fixed"),
    [
        ({}, True),
        ({"video_frontend_conf": {"lora": {"r": 2, "alpha": 4}}}, False),
        ({"projector_conf": {"fusion": {"audio": "dci"}}}, False),
    ],
)
def test_only_fixed_features_are_made_ahead(model_args, changes, fixed):
    args = model_args()
    for part, conf in changes.items():
        setattr(args, part, {**getattr(args, part), **conf})
    assert has_fixed_features(AVSRTask.build_model(args)) is fixed


def test_features_computed_before_are_not_encoded_again(model_args):
    model = AVSRTask.build_model(model_args())
    for modality, frontend in model.frontends.items():
        model.frontends[modality] = PrecomputedFeatures(frontend)
    assert not has_fixed_features(model)
