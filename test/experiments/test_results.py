"""Tables of results: from decode directories and checkpoints as the recipe leaves them."""

import jiwer
import pytest
import torch
from espnet2.train.reporter import Reporter

from espnet_smop.bin import paper, results
from espnet_smop.experiments.paper import PaperError
from espnet_smop.experiments.results import expert_shares

PAPER = """
settings: {a: {}, b: {}}
results:
  clean:
    title: Table
    task: avsr
    rows:
      A: {settings: [a], paper: [3.5]}
      B: {settings: [b]}
    columns: {x: {}}
  noise:
    title: Noise
    rows:
      A: {task: avsr, settings: [a], paper: [10.25, 20]}
      V: {task: vsr}
    columns: {5 dB: {snr: 5}, 0 dB: {snr: 0}}
  usage:
    title: Usage
    shows: experts
    rows:
      A: {task: avsr, settings: [a]}
      B: {task: avsr, settings: [b]}
    columns: {share: {}}
"""
REF = {f"s1-{i}": "one two three four" for i in range(20)}


def decoded(directory, wrong):
    """Score hypotheses of which so many have one word wrong."""
    hyp = {k: "one two three five" if i < wrong else v for i, (k, v) in enumerate(REF.items())}
    directory.mkdir(parents=True)
    for name, texts in (("ref", REF), ("text", hyp), ("utt2spk", dict.fromkeys(REF, "s1"))):
        (directory / name).write_text("".join(f"{k} {v}\n" for k, v in texts.items()))
    files = {"--ref": "ref", "--hyp": "text", "--utt2spk": "utt2spk", "--out_dir": ""}
    results.main(["score", *(x for k, v in files.items() for x in (k, str(directory / v)))])
    return 100 * jiwer.wer(list(REF.values()), list(hyp.values()))


@pytest.fixture
def run(tmp_path, capsys):
    (tmp_path / "conf/machine").mkdir(parents=True)
    (tmp_path / "conf/paper.yaml").write_text(PAPER)
    (tmp_path / "conf/machine/1x80gb.yaml").write_text("batch_bins: 1\n")
    for task in ("asr", "vsr", "avsr"):
        (tmp_path / f"conf/train_{task}.yaml").write_text("seed: 0\n")

    def run(action, *tables, **options):
        capsys.readouterr()
        named = [x for k, v in options.items() for x in (f"--{k}", v)]
        paper.main([action, str(tmp_path / "conf/paper.yaml"), *tables, *named,
                    "--expdir", str(tmp_path / "exp")])  # fmt: skip
        return capsys.readouterr().out

    return run


def row(text, label):
    (line,) = [line for line in text.splitlines() if line.startswith(f"{label} ")]
    return [cell.strip() for cell in line.removeprefix(label).split("  ") if cell.strip()]


def test_ours_beside_the_papers(tmp_path, run):
    wer = decoded(tmp_path / "exp/avsr_avsr_a/decode/test", 8)
    text = run("table", "clean")
    ours, paper = row(text, "A")
    rate, low, high = (
        float(x) for x in ours.replace("[", "").replace("]", "").replace(",", "").split()
    )
    assert rate == wer == 10
    assert 3 < low < rate < high < 17
    assert paper == "3.5"
    assert row(text, "B") == ["–", "–"]


def test_noise_levels_and_lips(tmp_path, run):
    decoded(tmp_path / "exp/avsr_avsr_a/decode/test_babble_snr0", 4)
    decoded(tmp_path / "exp/avsr_avsr_a/decode/test_other_snr5", 4)
    decoded(tmp_path / "exp/avsr_avsr_a/another tag/test_babble_snr5", 4)
    decoded(tmp_path / "exp/avsr_avsr_a/decode/test2_babble_snr0", 8)
    decoded(tmp_path / "exp/avsr_vsr/decode/test", 12)
    text = run("table", "noise")
    assert "noise: babble" in text
    missing, *_, ours, paper = row(text, "A")
    assert (missing, paper) == ("–", "20") and ours.startswith("5.00 [")
    assert text.count("15.00 [") == 2
    ours, _, missing, _ = row(run("table", "noise", noise="other"), "A")
    assert ours.startswith("5.00 [") and missing == "–"


def test_the_plan_leaves_out_what_is_done(tmp_path, run):
    decoded(tmp_path / "exp/avsr_avsr_a/decode/test_babble_snr0", 4)
    (tmp_path / "exp/avsr_avsr_a/valid.acc.ave.pth").write_text("a model")
    lines = [line.split("\t") for line in run("plan").splitlines()]
    assert [(name, state, snrs, views) for name, _, state, snrs, views in lines] == [
        ("avsr_a", "trained", "clean 5", ""),
        ("avsr_b", "untrained", "clean", ""),
        ("vsr", "untrained", "clean", ""),
    ]
    assert all((tmp_path / "exp/paper/conf" / f"{name}.yaml").is_file() for name, *_ in lines)
    assert [line.split("\t")[0] for line in run("plan", only="_b").splitlines()] == ["avsr_b"]
    (only_usage,) = run("plan", "usage", only="_b").splitlines()
    assert only_usage.endswith("untrained\t\t")


def test_views_are_decoded_by_themselves(tmp_path, run):
    (tmp_path / "conf/train_omni.yaml").write_text("seed: 0\n")
    (tmp_path / "conf/paper.yaml").write_text("""
settings: {}
results:
  rates:
    title: Rates
    config: omni
    rows: {Omni: {paper: [1, 2, 3]}}
    columns:
      ASR: {task: asr, rates: {audio: 4}}
      AVSR: {task: avsr, rates: {audio: 4, video: 2}}
      noise: {task: avsr, rates: {audio: 4, video: 2}, snr: 0}
""")
    plan = [line.split("\t") for line in run("plan").splitlines()]
    assert [line[2:] for line in plan] == [
        ["untrained", "clean", "asr:4"],
        ["trained", "clean 0", "avsr:4,2"],
    ]
    decoded(tmp_path / "exp/avsr_omni/decode_asr_a4/test", 8)
    decoded(tmp_path / "exp/avsr_omni/decode_avsr_a4_v2/test_babble_snr0", 4)
    decoded(tmp_path / "exp/avsr_omni/decode_avsr_a4_v5/test", 4)
    asr, _, avsr, _, noise, _ = row(run("table"), "Omni")
    assert asr.startswith("10.00 [") and avsr == "–" and noise.startswith("5.00 [")
    ((_, _, state, snrs, views),) = [line.split("\t") for line in run("plan").splitlines()]
    assert (state, snrs, views) == ("untrained", "clean", "avsr:4,2")


def test_expert_shares_from_what_the_trainer_reported(tmp_path, run):
    experiment = tmp_path / "exp/avsr_avsr_a"
    experiment.mkdir(parents=True)
    reporter = Reporter()
    for epoch in (1, 2):
        reporter.set_epoch(epoch)
        with reporter.observe("valid") as sub:
            for share in (0.25, 0.75):
                share = share if epoch == 2 else 0.0
                sub.register({
                    "router_joint/audio_first_0": torch.tensor(share),
                    "router_joint/audio_first_1": torch.tensor(1 - share),
                    "router_joint/audio_second_10": torch.tensor(1.0),
                    "router_joint/audio_second_9": torch.tensor(0.0),
                    "loss": torch.tensor(1.0),
                })  # fmt: skip
                sub.next()
    torch.save({"reporter": reporter.state_dict()}, experiment / "checkpoint.pth")
    assert expert_shares(experiment) == {
        ("joint", "audio", "first"): [0.5, 0.5],
        ("joint", "audio", "second"): [0.0, 1.0],
    }
    text = run("table", "usage")
    assert "joint" in text and "50.0   50.0" in text and "0.0  100.0" in text
    assert row(text, "B")[-1] == "–"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_causes_a_warning_and_ends_nothing(tmp_path, caplog, content):
    path = tmp_path / "checkpoint.pth"
    if content is None:
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content)
    assert expert_shares(tmp_path) == {}
    assert f"{path}: no training statistics could be read" in caplog.text
    path.unlink()
    assert expert_shares(tmp_path) == {}


def test_mistakes_are_explained(run):
    for arguments, message in (
        (("table", "table9"), "has no table9, only clean, noise, usage"),
        (("dry_run", "--throughput", "c=3"), "c is not a setting"),
        (("dry_run", "--throughput", "fast"), "expected a number or SETTING=NUMBER"),
        (("dry_run", "--throughput", "0"), "must be above 0"),
    ):
        with pytest.raises(PaperError, match=message):
            run(*arguments)
    for action in ("plan", "dry_run"):
        with pytest.raises(PaperError, match="no experiment's name contains it"):
            run(action, only="nothing")
