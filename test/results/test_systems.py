from pathlib import Path

import pytest

from espnet_smop.bin import results
from espnet_smop.results.systems import conditions, read_systems, unique_names
from espnet_smop.results.transcripts import ScoringError


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["exp/avsr_a", "exp/avsr_b"], ["a", "b"]),
        (["one/exp/avsr_a", "two/exp/avsr_a"], ["one/exp/a", "two/exp/a"]),
        (["one/avsr_a", "two/avsr_b", "two/avsr_a"], ["one/a", "two/b", "two/a"]),
        (["exp/avsr_a", "exp/a"], ["avsr_a", "a"]),
        ([], []),
    ],
)
def test_names_tell_paths_apart(paths, names):
    assert unique_names(list(map(Path, paths)), lambda n: n.removeprefix("avsr_")) == names


def test_noise_alone_says_nothing_of_lips(tmp_path):
    (tmp_path / "config.yaml").write_text("audio_frontend: null\nvideo_frontend: avhubert\n")
    (tmp_path / "text").write_text("u1 a b\n")
    text, out = str(tmp_path / "text"), str(tmp_path / "dec/test_babble_snr0")
    results.main(["score", "--ref", text, "--hyp", text, "--out_dir", out, "--sclite", "none"])
    [system] = read_systems([tmp_path], metric="wer", unit="utterance")
    assert list(system.scores)
    assert conditions([system]) == []


def test_a_config_of_something_else_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("encoder: conformer\n")
    with pytest.raises(ScoringError, match="config.yaml sets neither audio_frontend"):
        read_systems([tmp_path], metric="wer", unit="utterance")
