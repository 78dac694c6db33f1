import pytest
import torch

from espnet_smop.tasks.avsr import AVSRTask


@pytest.mark.parametrize("warm_start_steps", [0, 1])
def test_the_projector_learns_at_its_own_rate_once_the_warm_start_is_over(
    model_args, warm_start_steps
):
    args = model_args(
        model_conf={"ctc_warmup_steps": warm_start_steps}, projector_lr_scale=0.25,
        optim="sgd", optim_conf={"lr": 0.5}, sharded_ddp=False, exclude_weight_decay=False,
    )  # fmt: skip
    model = AVSRTask.build_model(args)
    (optimizer,) = AVSRTask.build_optimizers(args, model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    steps = {}
    for rate in (0.5, 0.25):
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        for name in before:
            model.get_parameter(name).grad = torch.ones_like(before[name])
        optimizer.step()
        assert {group["lr"] for group in optimizer.param_groups} == {rate}
        schedule.step()
        steps[rate] = {n: float((p - model.get_parameter(n)).mean()) for n, p in before.items()}
        if model.warm_start is not None:
            model.warm_start.step += 1
    for rate, by_name in steps.items():
        for name, step in by_name.items():
            scaled = name.startswith("projector.") and (rate == 0.25 or not warm_start_steps)
            assert step == pytest.approx(rate * (0.25 if scaled else 1), rel=1e-3)


def test_its_state_is_that_of_a_new_optimizer(model_args):
    args = model_args(
        projector_lr_scale=0.25,
        optim="adamw",
        optim_conf={"lr": 0.1},
        sharded_ddp=False,
        exclude_weight_decay=False,
    )
    (first,), (second,) = (
        AVSRTask.build_optimizers(args, AVSRTask.build_model(args)) for _ in range(2)
    )
    second.load_state_dict(first.state_dict())
    trained = sum(p.numel() for g in second.param_groups for p in g["params"])
    assert trained == sum(p.numel() for p in AVSRTask.build_model(args).parameters())
