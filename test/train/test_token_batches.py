from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smop.train.token_batches import Counts, TokenBatchSampler, prefix_lengths


def counts(frames, text, fixed=4):
    named = {f"u{i}": n for i, n in enumerate(frames)}
    texts = {f"u{i}": n for i, n in enumerate(text)}
    return Counts.of(named, texts, prefix=lambda n: fixed - (-2 * n // 3) - (-n // 3))


def lrs3_like(count=20000, seed=0):
    """Durations and texts as in LRS3's pretrain and trainval parts, cut at 24 s."""
    rng = np.random.default_rng(seed)
    long = rng.random(count) < 0.8
    seconds = np.where(
        long,
        np.exp(rng.normal(np.log(9.0), 0.75, count)),
        np.exp(rng.normal(np.log(2.8), 0.55, count)),
    ).clip(0.6, 24.0)
    words = np.maximum(1, rng.normal(3.0, 0.6, count) * seconds).astype(int)
    return (seconds * 25).astype(int).tolist(), (words * 1.3).astype(int).tolist()


def test_positions_are_those_of_the_decoder(model_args, media):
    """Against the sequence that the LLM really gets."""
    from espnet_smop.tasks.avsr import AVSRTask

    model = AVSRTask.build_model(model_args())
    frames, text = 26, 5
    tokens, lengths = {}, {}
    for modality, rate in (("audio", 2), ("video", 1)):
        n = -(-frames * rate // 3)
        drawn, _ = media([n - 1], model.decoder.embed_size, modalities=("audio", "x"))
        tokens[modality], lengths[modality] = drawn["x"], np.array([n])
    prefix = model.decoder._prefixes(tokens, lengths)[0]
    counted = Counts.of(
        {"a": frames},
        {"a": text},
        prefix=partial(
            prefix_lengths,
            frontends=model.frontends,
            projector=model.projector,
            decoder=model.decoder,
        ),
    )
    assert counted.tokens.tolist() == [len(prefix) + text]
    assert counted.text.tolist() == [text + 1]


@pytest.mark.parametrize("rate_pairs", ["sample", "all"])
def test_the_positions_of_all_views_of_a_step_count(model_args, rate_pairs):
    """Against the sequences that the LLM really gets."""
    from espnet_smop.tasks.avsr import AVSRTask

    rates = {"mode": "avgpool", "audio": [4, 16], "video": [5, 2]}
    model = AVSRTask.build_model(
        model_args(
            model_conf={"tasks": {"asr": 1.0, "avsr": 1.0}, "rate_pairs": rate_pairs},
            projector_conf={"hidden_size": 16, "downsample": rates},
        )
    )
    frames, text = np.array([26, 40]), 5
    lengths = {}
    for view in model.views.all:
        features = {
            m: torch.zeros(1, 40 * frames_per_frame, model.frontends[m].output_size())
            for m, frames_per_frame in (("audio", 2), ("video", 1)) if m in view.modalities
        }  # fmt: skip
        for n in frames:
            valid = {m: torch.tensor([n * x.shape[1] // 40]) for m, x in features.items()}
            projected = model.projector(features, valid, rates=view.rates)
            [prefix] = model.decoder._prefixes(projected.tokens, projected.lengths)
            lengths[view.tag, n] = len(prefix) + text
    if rate_pairs == "all":
        expected = [sum(lengths[view.tag, n] for view in model.views.all) for n in frames]
    else:
        expected = [lengths["asr_a4", n] + lengths["avsr_a4_v2", n] for n in frames]
    counted = Counts.of(
        {"a": 26, "b": 40},
        {"a": text, "b": text},
        prefix=partial(
            prefix_lengths,
            frontends=model.frontends,
            projector=model.projector,
            decoder=model.decoder,
            steps=model.views.steps,
        ),
        readings=len(model.views.steps[0]),
    )
    assert counted.tokens.tolist() == expected


def test_padding_waste_on_lrs3_lengths_is_below_a_tenth():
    sampler = TokenBatchSampler(
        counts(*lrs3_like(), fixed=12), {"tokens": 6000, "frames": 4000, "text": 2000}
    )
    waste = sampler.padding_waste()
    assert waste["frames"] < 0.02 and waste["tokens"] < 0.1
    assert f"frames {100 * waste['frames']:.1f} %" in repr(sampler)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 60)), min_size=8, max_size=120),
    st.sampled_from([1, 2, 3, 8]),
    st.integers(2, 8),
)
def test_every_utterance_is_there_once_and_no_process_gets_more_than_its_share(
    lengths, world_size, rows
):
    counted = counts(*zip(*lengths, strict=True))
    limits = {
        name: world_size * rows * int(getattr(counted, name).max())
        for name in ("tokens", "frames", "text")
    }
    sampler = TokenBatchSampler(counted, limits, world_size=world_size)
    batches = list(sampler)
    assert sorted(key for batch in batches for key in batch) == sorted(counted.keys)
    place = {key: i for i, key in enumerate(counted.keys)}
    for batch in batches:
        assert len(batch) >= world_size  # what ESPnet asks for
        for rank in range(world_size):
            rank_rows = [place[key] for key in batch[rank::world_size]]
            for name, limit in limits.items():
                padded = len(rank_rows) * getattr(counted, name)[rank_rows].max()
                assert padded <= limit // world_size
    uneven = [batch for batch in batches if len(batch) % world_size]
    assert len(uneven) <= 1


def test_each_limit_alone_can_end_a_batch():
    for name in ("tokens", "frames", "text"):
        counted = counts([10] * 8, [5] * 8)
        limits = {n: 10**6 for n in ("tokens", "frames", "text")}
        limits[name] = 2 * int(getattr(counted, name)[0])
        assert [len(b) for b in TokenBatchSampler(counted, limits)] == [2] * 4


def test_a_clip_that_cannot_fit_is_named_before_training():
    with pytest.raises(ValueError, match=r"u1 has 900 frames, but a batch takes 800 \(1 such"):
        TokenBatchSampler(counts([10, 900], [1, 1]), {"tokens": 10**4, "frames": 800})
    with pytest.raises(ValueError, match=r"u0 .* text, .* each of 2 processes .*batch_limits.text"):
        TokenBatchSampler(counts([9, 9], [50, 1]), {"tokens": 10**4, "text": 60}, world_size=2)
    with pytest.raises(ValueError, match="2 utterances are not enough for 3 processes"):
        TokenBatchSampler(counts([9, 9], [1, 1]), {"tokens": 10**4}, world_size=3)
    with pytest.raises(ValueError, match="1 utterances are left over.*raise batch_bins"):
        TokenBatchSampler(counts([9] * 3, [1] * 3), {"tokens": 10**4, "frames": 18}, world_size=2)
    with pytest.raises(ValueError, match=r"b and 0 more have no line in text"):
        Counts.of({"a": 1, "b": 2}, {"a": 1}, prefix=lambda n: n)
