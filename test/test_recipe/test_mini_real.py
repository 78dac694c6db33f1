"""Real base models in the mini recipe, Whisper Base and SmolLM2-135M, at the smoke size."""

import pytest
import torch

STEPS = 24  # of 3 utterances, in three epochs
START, END = 7.5, 5.5  # nats per token: above in the first epoch, below in the last

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def test_the_loss_falls(clone_recipe, get_base_models):
    pytest.importorskip("espeakng_loader")
    recipe = clone_recipe("mini_lrs3")
    config = ["--avsr_config", "conf/train_avsr_real.yaml"]
    get_base_models(recipe, *config)
    arguments = (
        f"--max_epoch 3 --num_iters_per_epoch {STEPS // 3} --batch_bins 160 "
        "--scheduler_conf warmup_steps=4 --scheduler_conf max_lr=1e-2 --projector_lr_scale 1.0 "
        "--model_conf ctc_warmup_steps=0"
    )
    recipe.run(
        *("./run.sh", "--size", "smoke", "--ngpu", "0", "--stop_stage", "11", *config),
        *("--avsr_args", arguments, "--avsr_exp", "exp/real"),
    )
    checkpoint = torch.load(recipe.dir / "exp/real/checkpoint.pth", weights_only=True)
    epochs = checkpoint["reporter"]["stats"]
    first, last = (float(epochs[e]["train"]["loss_ce"]) for e in (1, 3))
    assert first > START
    assert last < END
    assert float(epochs[3]["valid"]["loss_ce"]) < END
