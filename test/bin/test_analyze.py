"""The whole report, of small systems with hypotheses of known errors."""

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import jiwer
import matplotlib.image
import pytest
import torch
import yaml

from espnet_smop.bin import analyze, score
from espnet_smop.tasks.avsr import AVSRTask

SYSTEMS = {
    "avsr_train_n2": {"projector_conf": {"routing": "jejr", "num_experts": 2, "hidden_size": 16}},
    "avsr_train_n4": {"projector_conf": {"routing": "jejr", "num_experts": 4, "hidden_size": 16}},
    "avsr_train_mlp": {"projector": "mlp", "projector_conf": {"hidden_size": 16}},
}
WRONG = {"avsr_train_n2": 3, "avsr_train_n4": 1, "avsr_train_mlp": 11}
LOG = """x INFO: RTF: 0.5000 (2.0 s for 4.0 s)
x INFO: peak memory: 1024 MiB of the process
"""


def decode(directory, dump_dir, wrong):
    lines = (dump_dir / "text").read_text().splitlines()
    ref = {u: t for u, _, t in (line.partition(" ") for line in lines)}
    hyp = {u: t if i >= wrong else t + " <b>" for i, (u, t) in enumerate(ref.items())}
    (directory / "logdir").mkdir(parents=True)
    (directory / "logdir/avsr_inference.1.log").write_text(LOG)
    for name, texts in (("ref", ref), ("text", hyp), ("utt2spk", {u: u[:4] for u in ref})):
        (directory / name).write_text("".join(f"{k} {v}\n" for k, v in texts.items()))
    files = {"ref": "ref", "hyp": "text", "utt2spk": "utt2spk"}
    options = [x for k, v in files.items() for x in (f"--{k}", str(directory / v))]
    score.main([*options, "--sclite", "none", "--out_dir", str(directory)])
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
        reported = {"loss_balance": 2.5, "loss_z": 0.5, "acc": 0.5}
        stats = {e: {"train": reported, "valid": reported} for e in (1, 2)}
        torch.save({"reporter": {"stats": stats, "epoch": 2}}, path / "checkpoint.pth")
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
    analyze.main([str(expdir), "--data_dir", str(dump_dir), "--num_utts", "5", "--out", str(out)])
    assert capsys.readouterr().out.strip() == str(out / "report.html")

    figures = out / "figures"
    rows = read(figures / "rates_test.csv")
    assert len(rows) == 6
    for row in rows:
        rate = rates[f"avsr_train_{row['system']}", row["snr"]]
        assert float(row["rate"]) == pytest.approx(rate, abs=1e-3)
        assert float(row["low"]) <= rate <= float(row["high"])
        assert (row["utterances"], row["speakers"]) == ("12", "3")
    # The two that differ in N alone share a line, the MLP is not on it.
    assert {(r["system"], r["experts"]) for r in read(figures / "experts_test.csv")} == {
        ("n2", "2"), ("n4", "4")}  # fmt: skip
    assert not (figures / "size_test.csv").exists()
    pairs = read(figures / "significance_test_clean.csv")
    assert [(r["a"], r["b"], r["errors"]) for r in pairs] == [
        ("mlp", "n2", "8"), ("mlp", "n4", "10"), ("n2", "n4", "2")]  # fmt: skip
    usage = read(figures / "usage_n4.csv")
    assert [(u["router"], u["modality"], u["expert"]) for u in usage[:5]] == [
        *(("joint", "audio", str(e)) for e in (1, 2, 3, 4)), ("joint", "video", "1")]  # fmt: skip
    assert sum(float(u["first_choice"]) for u in usage) == pytest.approx(2, abs=1e-4)
    cost = {r["system"]: r for r in read(figures / "cost.csv")}
    assert (cost["n2"]["rtf"], cost["n2"]["memory_mib"]) == ("0.5", "1024.0")
    assert cost["n2"]["parameters_total"] == cost["n2"]["parameters_active"]
    assert int(cost["n4"]["parameters_total"]) > int(cost["n4"]["parameters_active"])
    assert float(cost["mlp"]["gflop_per_second_LLM"]) > 0

    names = {p.stem for p in figures.glob("*.svg")}
    assert names == {
        "rates_test", "snr_test_babble", "experts_test", "significance_test_clean",
        "significance_test_babble-5", "usage_n2", "usage_n4", "strip_n2", "strip_n4", "cost",
        "training",
    }  # fmt: skip
    for name in names:
        assert ET.parse(figures / f"{name}.svg").getroot().tag.endswith("svg")
        assert matplotlib.image.imread(figures / f"{name}.png").std() > 0
        assert json.loads((figures / f"{name}.json").read_text())["data"]

    text = (out / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.headings == [
        "Error rates", "Significance", "Expert usage", "Parameters and compute", "Training",
    ]  # fmt: skip
    assert all(re.match(r"data:|#s\d", address) for address in page.fetched)
    assert "<script" not in text
    assert "bootstrap samples; what is drawn are speakers" in text
    assert "3 speakers" in text
    assert json.loads((out / "report.json").read_text())["exhibits"].keys() >= names


def test_names_are_text_in_the_page(experiments, tmp_path):
    expdir, _ = experiments
    (expdir / "avsr_train_n2").rename(expdir / "avsr_<i>&")
    analyze.main([str(expdir), "--out", str(tmp_path / "out"), "--unit", "utterance"])
    text = (tmp_path / "out/report.html").read_text()
    assert "&lt;i&gt;&amp;" in text
    assert not Page(text).open
    assert "no --data_dir was given" in text
    assert "what is drawn are utterances" in text


def test_what_is_missing_is_said(experiments, dump_dir, tmp_path, capsys):
    expdir, _ = experiments
    (expdir / "avsr_train_n2/valid.acc.ave.pth").unlink()
    options = ["--data_dir", str(dump_dir), "--num_utts", "2", "--out", str(tmp_path / "out")]
    analyze.main([str(expdir / "avsr_train_n2"), *options])
    assert "valid.acc.ave.pth does not exist" in (tmp_path / "out/report.html").read_text()
    with pytest.raises(SystemExit, match="no such utterance"):
        analyze.main([str(expdir), *options, "--utterance", "x"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no experiment"):
        analyze.main([str(tmp_path / "empty")])


def test_systems_of_one_name_and_a_statistic_that_is_infinite(experiments, dump_dir, tmp_path):
    expdir, _ = experiments
    shutil.rmtree(expdir / "avsr_train_mlp")
    other = shutil.copytree(expdir, tmp_path / "run2" / expdir.name)
    (other / "avsr_train_n4").rename(other / "avsr_n4")
    shutil.rmtree(other / "avsr_n4/dec")
    decode(other / "avsr_n4/dec/test", dump_dir, 0)
    analyze.main([str(expdir), str(other), "--out", str(tmp_path / "out")])
    everything = json.loads((tmp_path / "out/report.json").read_text(), parse_constant=pytest.fail)
    rates = {r["system"] for r in everything["exhibits"]["rates_test"]["data"]}
    assert rates == {
        f"{parent}/{expdir.name}/{name}" for parent in (tmp_path.name, "run2")
        for name in ("n2", "n4")
    }  # fmt: skip
    # Where one is always better by one error there is no spread; JSON has no infinite numbers.
    differences = everything["exhibits"]["significance_test_clean"]["data"]
    assert None in {d["z"] for d in differences}
    assert "inf" in (tmp_path / "out/figures/significance_test_clean.csv").read_text()
