import pytest
import torch
from torch import nn

from espnet_smop.base_model import frozen_keys
from espnet_smop.tasks.avsr import AVSRTask


@pytest.mark.slow
def test_an_epoch_of_espnets_trainer_changes_adapters_only(
    model_args, train_command, tmp_path, monkeypatch
):
    conf = {**model_args().video_frontend_conf, "dtype": "float32", "lora": {"r": 2, "alpha": 4}}
    command = train_command(
        "exp",
        video_frontend_conf=conf,
        max_epoch=1,
        optim_conf={"lr": 1.0e-2, "weight_decay": 0.1},
    )

    built, before, trained_modes = [], {}, []
    original = AVSRTask.build_model

    def build_model(args):
        model = original(args)
        built.append(model)
        before.update({k: v.clone() for k, v in nn.Module.state_dict(model).items()})
        model.register_forward_pre_hook(
            lambda *_: trained_modes.append(
                [
                    name
                    for name, module in model.frontends.named_modules()
                    if module.training and ".encoder" in name and "lora_" not in name
                ]
            )
        )
        return model

    monkeypatch.setattr(AVSRTask, "build_model", build_model)
    AVSRTask.main(cmd=command)

    (model,) = built
    frozen, after = frozen_keys(model), nn.Module.state_dict(model)
    statistics = [k for k in frozen if "running_" in k or "num_batches" in k]
    assert statistics and all(torch.equal(before[k], after[k]) for k in frozen)
    assert trained_modes and not any(trained_modes)  # no dropout, no BatchNorm updates
    adapters = [k for k in after if k.startswith("frontends.video") and "lora_" in k]
    assert adapters and all(not torch.equal(before[k], after[k]) for k in adapters)
    assert not any(p.requires_grad for p in model.frontends["audio"].parameters())
    checkpoint = torch.load(tmp_path / "exp" / "1epoch.pth", weights_only=True)
    assert set(adapters) <= checkpoint.keys() and not frozen & checkpoint.keys()
