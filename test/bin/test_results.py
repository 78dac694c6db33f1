"""Merging, scoring and tables on small decode directories."""

import re
import shutil

import jiwer
import pytest

from espnet_smop.bin import results
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.results.transcripts import ScoringError

REF = {"s1-1": "HELLO WORLD", "s1-2": "A B C", "s2-1": "ONE TWO"}
HYP = {"s1-1": "hello word", "s1-2": "", "s2-1": "ONE TWO THREE"}


def write(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{utt} {text}\n" for utt, text in texts.items()))
    return str(path)


def sum_row(result):
    rows = [line for line in result.read_text().splitlines() if "Avg" in line]
    assert len(rows) == 1
    return rows[0].replace("|", " ").split()


@pytest.mark.parametrize("sclite", ["none", "auto"])
def test_score_gives_jiwers_rates(tmp_path, sclite):
    ref, hyp = write(tmp_path / "ref", REF), write(tmp_path / "hyp", HYP)
    utt2spk = write(tmp_path / "utt2spk", {utt: utt[:2] for utt in REF})
    out = tmp_path / "decode" / "test"
    results.main(["score", "--ref", ref, "--hyp", hyp, "--utt2spk", utt2spk, "--out_dir", str(out),
                "--sclite", sclite])  # fmt: skip
    refs, hyps = list(REF.values()), [h.upper() for h in HYP.values()]
    wer = sum_row(out / "score_wer" / "result.txt")
    assert wer[:3] == ["Sum/Avg", "3", "7"]
    assert float(wer[-2]) == pytest.approx(100 * jiwer.wer(refs, hyps), abs=0.05)
    assert "SPKR" in (out / "score_wer" / "result.txt").read_text()
    cer = sum_row(out / "score_cer" / "result.txt")
    assert float(cer[-2]) == pytest.approx(100 * jiwer.cer(refs, hyps), abs=0.05)
    assert "H E L L O <space> W O R L D (s1-s1-1)" in (out / "score_cer/ref.trn").read_text()


def test_score_refuses_other_utterances(tmp_path):
    ref = write(tmp_path / "ref", REF)
    hyp = write(tmp_path / "hyp", {k: v for k, v in HYP.items() if k != "s1-2"})
    with pytest.raises(ScoringError, match=r"hyp lacks 1 of 3 ids: s1-2"):
        results.main(["score", "--ref", ref, "--hyp", hyp, "--out_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def decoded(tmp_path, parts):
    for job, texts in enumerate(parts, 1):
        for name in ("text", "token", "token_int", "score"):
            write(tmp_path / "logdir" / f"output.{job}" / "1best_recog" / name, texts)
    return ["merge", "--ref", write(tmp_path / "ref", REF), "--log_dir", str(tmp_path / "logdir"),
            "--num_jobs", str(len(parts)), "--out_dir", str(tmp_path / "out")]  # fmt: skip


def test_merge_adds_up_what_the_jobs_took(tmp_path):
    arguments = decoded(tmp_path, [{"s2-1": "x", "s1-2": ""}, {"s1-1": "y z"}])
    results.main(arguments)
    assert DecodingCosts.read(tmp_path / "out") is None  # decoded by another program
    for job, seconds in ((1, 2.0), (2, 3.0)):
        costs = DecodingCosts(job, 4.0, seconds, 100 * job, "process")
        costs.write(tmp_path / "logdir" / f"output.{job}")
    results.main(arguments)
    assert DecodingCosts.read(tmp_path / "out") == DecodingCosts(3, 8.0, 5.0, 200, "process")


def test_merge_sorts_and_keeps_empty_hypotheses(tmp_path):
    results.main(decoded(tmp_path, [{"s2-1": "x", "s1-2": ""}, {"s1-1": "y z"}]))
    assert (tmp_path / "out" / "text").read_text() == "s1-1 y z\ns1-2\ns2-1 x\n"
    assert (tmp_path / "out" / "score").exists()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"s1-1": "y"}, {"s1-2": "x"}], "lacks 1 of 3 ids: s2-1"),
        ([REF, {"s1-1": "y"}], "'s1-1' was decoded by two jobs"),
    ],
)
def test_merge_names_what_is_missing_or_double(tmp_path, parts, message):
    with pytest.raises(ScoringError, match=message):
        results.main(decoded(tmp_path, parts))
    assert not (tmp_path / "out" / "text").exists()


@pytest.fixture
def experiments(tmp_path):
    ref = write(tmp_path / "ref", REF)
    systems = {"avsr_a": ("whisper", HYP), "avsr_v": ("null", REF)}
    for name, (frontend, texts) in systems.items():
        exp = tmp_path / "exp" / name
        exp.mkdir(parents=True)
        (exp / "config.yaml").write_text(f"audio_frontend: {frontend}\nvideo_frontend: avhubert\n")
        noisy = ["test_babble_snr-5", "test_babble_snr5"] if frontend != "null" else []
        for dset in ["test", *noisy]:
            hyp = write(tmp_path / "hyp", texts)
            out = exp / "decode" / dset
            results.main(
                ["score", "--ref", ref, "--hyp", hyp, "--out_dir", str(out), "--sclite", "none"]
            )
    (tmp_path / "exp" / "avsr_stats").mkdir()
    return tmp_path / "exp"


def test_table_has_a_row_per_system_and_a_column_per_ratio(experiments, capsys):
    capsys.readouterr()
    results.main(["table", str(experiments)])
    title, header, _, *rows = capsys.readouterr().out.splitlines()
    assert "95 % bootstrap intervals over utterances; noise: babble" in title
    assert header.split() == ["task", "system", "clean", "5", "dB", "-5", "dB"]
    assert [row.split()[:3] for row in rows] == [
        ["AVSR", "avsr_a", "71.43"],
        ["VSR", "avsr_v", "0.00"],
    ]
    assert rows[1].count("0.00 [0.00, 0.00]") == 3  # lips do not hear the noise


def test_experiments_of_one_name_and_noises_of_one_ratio_are_told_apart(
    experiments, tmp_path, capsys
):
    other = shutil.copytree(experiments, tmp_path / "run2" / "exp")
    shutil.rmtree(other / "avsr_v")
    (other / "avsr_a/decode/test_babble_snr5").rename(other / "avsr_a/decode/test_hum_snr5")
    capsys.readouterr()
    results.main(["table", str(experiments / "avsr_a"), str(other)])
    title, header, _, *rows = capsys.readouterr().out.splitlines()
    assert title.endswith("noise: babble, hum")
    assert re.split("  +", header) == [
        "task", "system", "clean", "babble 5 dB", "babble -5 dB", "hum 5 dB"]  # fmt: skip
    cells = [re.split("  +", row)[1:] for row in rows]
    assert [row[0] for row in cells] == [
        f"{tmp_path.name}/exp/avsr_a", "run2/exp/avsr_a"]  # fmt: skip
    assert [[x == "-" for x in row[1:]] for row in cells] == [
        [False, False, False, True], [False, True, False, False]]  # fmt: skip


def test_table_without_results_is_no_error(tmp_path, capsys):
    results.main(["table", str(tmp_path)])
    assert "no scored decode directory" in capsys.readouterr().out


def test_comparison_of_two_systems(experiments, capsys):
    capsys.readouterr()
    a, v = (str(experiments / name / "decode" / "test") for name in ("avsr_a", "avsr_v"))
    results.main(["table", "--compare", a, v])
    assert "A 71.43 %, B 0.00 %, A - B = +71.43" in capsys.readouterr().out
    with pytest.raises(ScoringError):
        results.main(["table", "--compare", a, str(experiments)])


def test_comparison_of_two_experiments_has_a_line_for_each_noise_level(experiments, capsys):
    a, v = (str(experiments / name) for name in ("avsr_a", "avsr_v"))
    capsys.readouterr()
    results.main(["table", "--compare", f"{a}/decode/test", f"{v}/decode/test"])
    sentence = capsys.readouterr().out
    results.main(["table", "--compare", a, v])  # the lips were read once, for all levels
    assert capsys.readouterr().out == "".join(
        f"decode test {level}: {sentence}" for level in ("clean", "babble 5 dB", "babble -5 dB")
    )
    shutil.rmtree(experiments / "avsr_v/decode")
    with pytest.raises(ScoringError, match="no scored test set in common"):
        results.main(["table", "--compare", a, v])
