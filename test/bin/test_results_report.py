"""The whole report, of small systems with hypotheses of known errors."""

import csv
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import jiwer
import matplotlib.image
import numpy as np
import pytest
import torch
import yaml

from espnet_smop.bin import avsr_inference, results
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.results.transcripts import ScoringError
from espnet_smop.tasks.avsr import AVSRTask

SYSTEMS = {
    "avsr_train_n2": {"projector_conf": {"routing": "jejr", "num_experts": 2, "hidden_size": 16}},
    "avsr_train_n4": {"projector_conf": {"routing": "jejr", "num_experts": 4, "hidden_size": 16}},
    "avsr_train_mlp": {"projector": "mlp", "projector_conf": {"hidden_size": 16}},
}
WRONG = {"avsr_train_n2": 3, "avsr_train_n4": 1, "avsr_train_mlp": 11}
TOOK = DecodingCosts(12, 4.0, 2.0, 1024, "process")


def decode(directory, dump_dir, wrong):
    lines = (dump_dir / "text").read_text().splitlines()
    ref = {u: t for u, _, t in (line.partition(" ") for line in lines)}
    hyp = {u: t if i >= wrong else t + " <b>" for i, (u, t) in enumerate(ref.items())}
    directory.mkdir(parents=True)
    TOOK.write(directory)
    for name, texts in (("ref", ref), ("text", hyp), ("utt2spk", {u: u[:4] for u in ref})):
        (directory / name).write_text("".join(f"{k} {v}\n" for k, v in texts.items()))
    files = {"ref": "ref", "hyp": "text", "utt2spk": "utt2spk"}
    options = [x for k, v in files.items() for x in (f"--{k}", str(directory / v))]
    results.main(["score", *options, "--sclite", "none", "--out_dir", str(directory)])
    return 100 * jiwer.wer(list(ref.values()), list(hyp.values()))


@pytest.fixture
def experiments(model_args, dump_dir, tmp_path):
    rates = {}
    for name, changes in SYSTEMS.items():
        path = tmp_path / "exp of mine" / name
        path.mkdir(parents=True)
        args = model_args(**changes)
        torch.manual_seed(0)
        model = AVSRTask.build_model(args)
        (path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
        torch.save(model.state_dict(), path / "valid.acc.ave.pth")
        rates[name, "clean"] = decode(path / "dec/test", dump_dir, WRONG[name])
        rates[name, "-5"] = decode(path / "dec/test_babble_snr-5", dump_dir, WRONG[name] + 1)
    return tmp_path / "exp of mine", rates


class Page(HTMLParser):
    """Collects what a browser would fetch, and whether tags match."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.open, self.headings = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.fetched += [attrs[k] for k in ("src", "href") if k in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_report(experiments, dump_dir, tmp_path, capsys):
    expdir, rates = experiments
    out = tmp_path / "report"
    results.main(
        [
            "report",
            str(expdir),
            "--data_dir",
            str(dump_dir),
            "--num_utts",
            "5",
            "--out",
            str(out),
            "--unit",
            "speaker",
        ]
    )
    assert capsys.readouterr().out.strip() == str(out / "report.html")

    figures = out / "figures"
    rows = read(figures / "rates.csv")
    assert len(rows) == 6
    for row in rows:
        rate = rates[f"avsr_train_{row['system']}", row["snr"]]
        assert float(row["rate"]) == pytest.approx(rate, abs=1e-3)
        assert float(row["low"]) <= rate <= float(row["high"])
        assert (row["utterances"], row["speakers"]) == ("12", "3")
    pairs = read(figures / "significance_test_clean.csv")
    assert [(r["a"], r["b"], r["errors"]) for r in pairs] == [
        ("mlp", "n2", "8"), ("mlp", "n4", "10"), ("n2", "n4", "2")]  # fmt: skip
    usage = read(figures / "usage_n4.csv")
    assert [(u["router"], u["modality"], u["expert"]) for u in usage[:5]] == [
        *(("joint", "audio", str(e)) for e in (0, 1, 2, 3)), ("joint", "video", "0")]  # fmt: skip
    assert sum(float(u["first_choice"]) for u in usage) == pytest.approx(2, abs=1e-4)
    cost = {r["system"]: r for r in read(figures / "cost.csv")}
    assert (cost["n2"]["rtf"], cost["n2"]["memory_mib"]) == ("0.5", "1024")
    assert cost["n2"]["parameters_total"] == cost["n2"]["parameters_active"]
    assert int(cost["n4"]["parameters_total"]) > int(cost["n4"]["parameters_active"])
    assert float(cost["mlp"]["gflop_per_second_LLM"]) > 0

    names = {p.stem for p in figures.glob("*.svg")}
    assert names == {
        "snr_test_babble", "significance_test_clean", "significance_test_babble-5",
        "usage_n2", "usage_n4", "strip_n2", "strip_n4",
    }  # fmt: skip
    for name in names:
        assert ET.parse(figures / f"{name}.svg").getroot().tag.endswith("svg")
        assert matplotlib.image.imread(figures / f"{name}.png").std() > 0
        assert read(figures / f"{name}.csv")
    assert {p.stem for p in figures.glob("*.csv")} == names | {"rates", "routers", "cost"}

    text = (out / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.headings == ["Error rates", "Significance", "Expert usage", "Costs"]
    assert all(re.match(r"data:|#s\d", address) for address in page.fetched)
    assert "<script" not in text
    assert "bootstrap samples over speakers" in text
    assert "3 speakers" in text


def test_experts_by_phone_class(experiments, dump_dir, tmp_path):
    expdir, _ = experiments
    uids = [line.split()[0] for line in (dump_dir / "text").read_text().splitlines()]
    phones = tmp_path / "phones.ctm"
    phones.write_text("".join(f"{u} 1 0.1 0.3 AA1\n{u} 1 0.4 0.2 s\n" for u in uids[1:]))
    options = ["--data_dir", str(dump_dir), "--num_utts", "0", "--phones", str(phones)]
    results.main(["report", str(expdir), *options, "--out", str(tmp_path / "out")])
    figures = tmp_path / "out/figures"
    rows = read(figures / "phones.csv")
    assert [(r["system"], r["tokens_of"], r["choices"]) for r in rows] == [
        (system, modality, choices) for system in ("n2", "n4")
        for modality in ("audio", "video") for choices in ("first", "by weight")
    ]  # fmt: skip
    for row in rows:
        assert 0 <= float(row["mutual_information"]) < float(row["entropy_of_class"]) < np.log2(3)
        assert float(row["by_chance"]) <= float(row["by_chance_95"])
    shares = read(figures / "phones_n4.csv")
    assert {r["class"] for r in shares} == {"vowel", "fricative", "silence"}
    for column in ("first_choice", "by_weight"):
        total = sum(float(r[column]) for r in shares)
        assert total == pytest.approx(2 * 3, abs=1e-4)  # modalities and classes
    assert matplotlib.image.imread(figures / "phones_n4.png").std() > 0
    text = (tmp_path / "out/report.html").read_text()
    assert f"has the phones of {len(uids) - 1} of {len(uids)} utterances" in text
    assert "Experts of n4 by phone class" in text


def test_names_are_text_in_the_page(experiments, tmp_path):
    expdir, _ = experiments
    (expdir / "avsr_train_n2").rename(expdir / "avsr_<i>&")
    results.main(["report", str(expdir), "--out", str(tmp_path / "out"), "--unit", "utterance"])
    text = (tmp_path / "out/report.html").read_text()
    assert "&lt;i&gt;&amp;" in text
    assert not Page(text).open
    assert "no --data_dir was given" in text
    assert "bootstrap samples over utterances" in text


def test_what_is_missing_is_said(experiments, dump_dir, tmp_path, capsys):
    expdir, _ = experiments
    (expdir / "avsr_train_n2/valid.acc.ave.pth").unlink()
    options = ["--data_dir", str(dump_dir), "--num_utts", "2", "--out", str(tmp_path / "out")]
    results.main(["report", str(expdir / "avsr_train_n2"), *options])
    assert "valid.acc.ave.pth does not exist" in (tmp_path / "out/report.html").read_text()
    with pytest.raises(ValueError, match="no such utterance"):
        results.main(["report", str(expdir), *options, "--utterance", "x"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoringError, match="no experiment"):
        results.main(["report", str(tmp_path / "empty")])


def test_systems_of_one_name_and_a_statistic_that_is_infinite(experiments, dump_dir, tmp_path):
    expdir, _ = experiments
    shutil.rmtree(expdir / "avsr_train_mlp")
    other = shutil.copytree(expdir, tmp_path / "run2" / expdir.name)
    (other / "avsr_train_n4").rename(other / "avsr_n4")
    shutil.rmtree(other / "avsr_n4/dec")
    decode(other / "avsr_n4/dec/test", dump_dir, 0)
    results.main(["report", str(expdir), str(other), "--out", str(tmp_path / "out")])
    rows = read(tmp_path / "out/figures/rates.csv")
    assert {r["system"] for r in rows} == {
        f"{parent}/{expdir.name}/{name}" for parent in (tmp_path.name, "run2")
        for name in ("n2", "n4")
    }  # fmt: skip
    # Where one is always better by one error there is no spread.
    differences = read(tmp_path / "out/figures/significance_test_clean.csv")
    assert {"inf", "-inf"} & {d["z"] for d in differences}
    assert "inf" in (tmp_path / "out/figures/significance_test_clean.csv").read_text()


def test_from_decoding_jobs_to_their_costs_in_the_report(experiments, dump_dir, tmp_path):
    expdir, _ = experiments
    experiment = expdir / "avsr_train_n2"
    shutil.rmtree(experiment / "dec")
    decode_dir = experiment / "dec" / "test"
    ids = [line.split()[0] for line in (dump_dir / "text").read_text().splitlines()]
    for job in (1, 2):
        keys = tmp_path / f"keys.{job}"
        keys.write_text("".join(f"{uid} {uid}\n" for uid in ids[job - 1 :: 2]))
        avsr_inference.main([
            "--avsr_train_config", str(experiment / "config.yaml"),
            "--avsr_model_file", str(experiment / "valid.acc.ave.pth"),
            "--data_path_and_name_and_type", f"{dump_dir}/wav.scp,speech,sound",
            "--data_path_and_name_and_type", f"{dump_dir}/video.scp,video,video",
            "--key_file", str(keys), "--output_dir", str(decode_dir / f"logdir/output.{job}"),
            "--num_workers", "0", "--max_new_tokens", "5", "--beam_size", "1",
        ])  # fmt: skip
    ref = ["--ref", str(dump_dir / "text")]
    merged = ["--log_dir", str(decode_dir / "logdir"), "--num_jobs", "2"]
    results.main(["merge", *ref, *merged, "--out_dir", str(decode_dir)])
    hyp = ["--hyp", str(decode_dir / "text"), "--out_dir", str(decode_dir), "--sclite", "none"]
    results.main(["score", *ref, *hyp])
    assert DecodingCosts.read(decode_dir).utterances == len(ids)
    results.main(["report", str(experiment), "--out", str(tmp_path / "out")])
    [cost] = read(tmp_path / "out/figures/cost.csv")
    assert float(cost["rtf"]) > 0
    assert float(cost["memory_mib"]) > 50
