import json

import numpy as np
import pytest
from espnet2.train.dataset import ESPnetDataset

from espnet_smop.frontend.precomputed import FeatureCacheError, open_cache, write_cache

DESCRIPTION = {"fingerprints": {"whisper": "ab"}, "settings": {"padding": "longest"}}


def features():
    rng = np.random.default_rng(0)
    return {
        f"utt{i}": (rng.standard_normal((n, 24)) * 2).astype(np.float32)
        for i, n in enumerate((30, 1, 17))
    }


def test_espnet_reads_what_was_written(tmp_path):
    given = features()
    scp = write_cache(tmp_path / "a b" / "train", reversed(given.items()), DESCRIPTION)
    assert [line.split()[0] for line in scp.read_text().splitlines()] == sorted(given)
    assert (scp.parent / "feats.ark").stat().st_size < 0.6 * sum(x.nbytes for x in given.values())
    dataset = ESPnetDataset([(str(scp), "speech_feats", "kaldi_ark")])
    for uid, expected in given.items():
        _, found = dataset[uid]
        assert found["speech_feats"].dtype == np.float32
        step = (expected.max() - expected.min()) / 65535
        np.testing.assert_allclose(found["speech_feats"], expected, atol=step)
    assert open_cache(scp.parent, DESCRIPTION) == scp


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprints": {"whisper": "cd"}}, r"fingerprints\.whisper \(ab in the cache, cd now\)"),
        ({"settings": {"padding": "30s"}}, r"settings\.padding"),
        ({"settings": {}}, r"settings\.padding"),
        ({"dtype": "torch.bfloat16"}, "dtype"),
    ],
)
def test_another_description_is_refused(tmp_path, change, named):
    write_cache(tmp_path / "cache", features().items(), DESCRIPTION)
    with pytest.raises(FeatureCacheError, match=named):
        open_cache(tmp_path / "cache", DESCRIPTION | change)


def test_nothing_is_left_of_an_interrupted_write(tmp_path):
    def broken():
        yield from features().items()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "cache", broken(), DESCRIPTION)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FeatureCacheError, match="no feature cache"):
        open_cache(tmp_path / "cache", DESCRIPTION)


def test_an_existing_cache_is_not_overwritten(tmp_path):
    scp = write_cache(tmp_path / "cache", features().items(), DESCRIPTION)
    before = scp.read_text()
    with pytest.raises(FeatureCacheError, match="already"):
        write_cache(tmp_path / "cache", [], {})
    assert scp.read_text() == before
    assert json.loads((scp.parent / "cache.json").read_text()) == DESCRIPTION


def test_two_that_write_at_once_without_locks_leave_one_whole(tmp_path):
    given = features()

    def interrupted():
        for number, item in enumerate(given.items()):
            yield item
            if number == 0:
                other = write_cache(tmp_path / "train", given.items(), DESCRIPTION)
                assert open_cache(other.parent, DESCRIPTION) == other

    scp = write_cache(tmp_path / "train", interrupted(), DESCRIPTION)
    dataset = ESPnetDataset([(str(scp), "speech_feats", "kaldi_ark")])
    assert {uid: len(dataset[uid][1]["speech_feats"]) for uid in given} == {
        uid: len(x) for uid, x in given.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
