from pathlib import Path

import pytest

from espnet_smop.bin import results
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.results.error_rates import error_rates
from espnet_smop.results.exhibits import view_exhibits
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


def test_views_of_one_model_are_systems_with_their_costs(tmp_path):
    """One experiment, decoded as three views: two rates of lips, and both modalities in noise."""
    (tmp_path / "config.yaml").write_text("audio_frontend: whisper\nvideo_frontend: avhubert\n")
    (tmp_path / "text").write_text("u1 a b c d\nu2 a b c d\n")
    (tmp_path / "hyp").write_text("u1 a b c x\nu2 a b c d\n")
    decodes = {
        "dec_vsr_v2/test": ("vsr", {"video": 2}, 500, "text"),
        "dec_vsr_v5/test": ("vsr", {"video": 5}, 200, "hyp"),
        "dec_avsr_a4_v2/test": ("avsr", {"audio": 4, "video": 2}, 1000, "text"),
        "dec_avsr_a4_v2/test_babble_snr0": ("avsr", {"audio": 4, "video": 2}, 1000, "hyp"),
    }
    for name, (task, rates, tokens, hyp) in decodes.items():
        out = tmp_path / name
        out.mkdir(parents=True)
        DecodingCosts(2, 40.0, 10.0, 1.0, "process", task, rates, tokens).write(out)
        ref = ["--ref", str(tmp_path / "text"), "--hyp", str(tmp_path / hyp)]
        results.main(["score", *ref, "--out_dir", str(out), "--sclite", "none"])
    systems = read_systems([tmp_path], metric="wer", unit="utterance")
    name = tmp_path.name
    assert [(s.task, s.name) for s in systems] == [
        ("AVSR", f"{name} avsr_a4_v2"), ("VSR", f"{name} vsr_v2"), ("VSR", f"{name} vsr_v5"),
    ]  # fmt: skip
    table = error_rates([tmp_path], metric="wer", unit="utterance").splitlines()
    assert table[1].split()[:4] == ["task", "system", "tokens/s", "RTF"]
    [coarse] = [line.split() for line in table if "vsr_v5" in line]
    assert coarse[coarse.index("vsr_v5") + 1 :][:3] == ["5.0", "0.25", "12.50"]
    [exhibit] = view_exhibits(systems, "wer", "utterance")
    shown = [(r["task"], r["audio_rate"], r["video_rate"], r["tokens_per_second"], r["rate"])
             for r in exhibit.rows]  # fmt: skip
    assert shown == [("AVSR", 4, 2, 25.0, 0), ("VSR", None, 2, 12.5, 0), ("VSR", None, 5, 5, 12.5)]
    xs = [tuple(line.get_xdata()) for line in exhibit.figure.axes[0].get_lines()]
    assert (5.0, 12.5) in xs and (25.0,) in xs


def test_decodings_of_one_task_are_told_apart_by_their_tags(tmp_path):
    (tmp_path / "config.yaml").write_text("audio_frontend: null\nvideo_frontend: avhubert\n")
    (tmp_path / "text").write_text("u1 a b\n")
    text = str(tmp_path / "text")
    for tag in ("beam1", "beam5"):
        out = tmp_path / tag / "test"
        out.mkdir(parents=True)
        DecodingCosts(1, 4.0, 1.0, 1.0, "process", "vsr").write(out)
        words = ["--ref", text, "--hyp", text, "--out_dir", str(out), "--sclite", "none"]
        results.main(["score", *words])
    systems = read_systems([tmp_path], metric="wer", unit="utterance")
    assert [s.name.split()[-1] for s in systems] == ["beam1", "beam5"]
    assert "tokens/s" not in error_rates([tmp_path], metric="wer", unit="utterance")
