"""Computed peaks against what the profiler measures of a real step."""

import pytest
import torch

from espnet_smop.analysis.memory import training_memory
from espnet_smop.tasks.avsr import AVSRTask

FRAMES, TEXT, ROWS = 95, 30, 4


def measured(model) -> int:
    """Peak above what is there between steps, in bytes."""
    batch = {
        "speech": torch.randn(ROWS, FRAMES * 640),
        "speech_lengths": torch.full((ROWS,), FRAMES * 640),
        "video": torch.randn(ROWS, FRAMES, 88, 88),
        "video_lengths": torch.full((ROWS,), FRAMES),
        "text": torch.ones(ROWS, TEXT, dtype=torch.long),
        "text_lengths": torch.full((ROWS,), TEXT),
    }
    features = {}
    with torch.no_grad():
        for m, name in (("audio", "speech"), ("video", "video")):
            features[m] = model.frontends[m](batch[name], batch[f"{name}_lengths"])
    cached = {
        f"{name}_feats": features[m][0] for m, name in (("audio", "speech"), ("video", "video"))
    }
    cached |= {
        f"{n}_feats_lengths": features[m][1] for m, n in (("audio", "speech"), ("video", "video"))
    }
    text = {k: v for k, v in batch.items() if k.startswith("text")}
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        model(**cached, **text)[0].backward()
    now = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak + sum(x.nbytes for x, _ in features.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_backward_peak_is_what_the_profiler_sees(model_args, tmp_path, checkpointing):
    args = model_args()
    args.decoder_conf["gradient_checkpointing"] = checkpointing
    model = AVSRTask.build_model(args).train()
    computed = training_memory(
        vars(model_args(decoder_conf=args.decoder_conf)),
        tmp_path,
        utterances=ROWS,
        seconds=FRAMES / 25,
        text=TEXT,
        dtype="float32",
    )
    # Fake operators may be made of parts that one kernel does without their results: it is a bound.
    real = measured(model)
    assert 0.95 * real < computed.backward < 1.25 * real
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert computed.trained == 12 * trained
    assert computed.peak == computed.frozen + computed.trained + max(
        computed.encoders, computed.backward
    )


def test_an_encoder_that_is_trained_is_refused(model_args, tmp_path):
    args = vars(model_args())
    args["video_frontend_conf"] = {**args["video_frontend_conf"], "lora": {"r": 2}}
    with pytest.raises(ValueError, match="frozen encoders"):
        training_memory(args, tmp_path, utterances=1, seconds=1, text=3)
