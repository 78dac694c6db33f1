"""The README is short, its code is the project's, its figures are those that the scripts draw."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from espnet_smop.fileio.table import read_table
from espnet_smop.tasks.avsr import AVSRTask

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
PAGE = (ROOT / "README.md").read_text()
NUMERAL = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.fixture
def figures(monkeypatch):
    """Make the scripts importable, and forget them afterwards."""
    monkeypatch.syspath_prepend(FIGURES)
    yield
    for name in ("figure1", "noise", "themes", "utterance", "width"):
        sys.modules.pop(name, None)


def outside_tables(page):
    return "\n".join(line for line in page.splitlines() if not line.startswith("|"))


def block(language):
    [code] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return code


def test_the_page_is_short():
    lines = PAGE.splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 130] == []
    assert len(NUMERAL.findall(outside_tables(PAGE))) <= 60


def test_numerals_are_counted_outside_tables_alone():
    assert NUMERAL.findall(outside_tables("1,000 of 2.5\n| 3 | 4 |\n`a5`")) == ["1,000", "2.5", "5"]


def test_the_config_is_one(tmp_path, monkeypatch):
    conf = ROOT / "egs2/lrs3/avsr_smop1/conf"
    code = block("yaml").replace("train_base.yaml", str(conf / "train_base.yaml"))
    (tmp_path / "mine.yaml").write_text(code)
    printed = {}
    for name, file in (("mine", tmp_path / "mine.yaml"), ("paper", conf / "train_avsr.yaml")):
        monkeypatch.setattr(sys, "argv", ["avsr_train", "--config", str(file), "--print_config"])
        with (tmp_path / "printed").open("w") as out:
            AVSRTask.print_config(file=out)
        printed[name] = yaml.safe_load((tmp_path / "printed").read_text())
    assert printed["mine"] == printed["paper"]


def test_the_class_is_the_projects():
    source = (ROOT / "espnet_smop/projector/smop.py").read_text()
    head, body = block("python").split("\n\n")
    assert f"{head}\n" in source and body in source.partition(head)[2]


def test_pictures_exist_and_are_small():
    pages = (ROOT / "README.md", ROOT / "docs/architecture.md")
    named = [p.parent / n for p in pages for n in re.findall(r'src(?:set)?="(.*?)"', p.read_text())]
    assert len(named) == 10
    assert all(picture.is_file() for picture in named)
    assert sum(f.stat().st_size for f in FIGURES.iterdir() if f.suffix in (".png", ".svg")) < 4e5


def test_figure_1_names_files(figures, tmp_path):
    import figure1
    from themes import THEMES

    for name, theme in THEMES.items():
        drawn = figure1.draw(theme)
        assert drawn == (FIGURES / f"figure1_{name}.svg").read_text()
    files = set(re.findall(r">([\w/]+\.py)<", drawn))
    assert {"model.py", "projector/smop.py", "router.py", "experts.py", "llm.py"} < files
    for file in files:
        assert list((ROOT / "espnet_smop").glob(f"**/{file}")), file


def test_the_table_is_that_of_the_report(figures, tmp_path):
    import noise
    from themes import LIGHT

    rates = noise.read(noise.RATES)
    assert f"\n{noise.table(rates)}\n" in PAGE
    [ax] = noise.draw(rates, LIGHT).axes
    drawn = [container.lines[0].get_ydata().tolist() for container in ax.containers]
    assert drawn == [[rate for rate, _, _ in points] for points in rates.values()]


def test_the_curves_over_width_are_those_measured(figures):
    import width
    from themes import LIGHT

    curves = width.read(width.RATES)
    panels = width.draw(curves, LIGHT).axes
    drawn = [c.lines[0].get_ydata().tolist() for ax in panels for c in ax.containers]
    order = [(system, snr) for snr in width.CONDITIONS for system in width.SYSTEMS]
    assert drawn == [[mean for _, mean, _ in sorted(curves[key])] for key in order]
    assert len(order) == len(curves) == 4


def test_a_report_without_a_task_is_an_error(figures, tmp_path):
    import noise

    rows = noise.RATES.read_text().splitlines()
    (tmp_path / "rates.csv").write_text("\n".join(r for r in rows if not r.startswith("VSR")))
    with pytest.raises(KeyError, match="VSR"):
        noise.read(tmp_path / "rates.csv")


def test_an_utterance_shows_wrong_words_and_experts(figures):
    import utterance
    from themes import LIGHT

    rng = np.random.default_rng(0)
    probs = {m: rng.dirichlet([1, 1, 1], size=10) for m in ("audio", "video")}
    texts = {"sound alone": "ten mad coats ran", "both": "ten red coats"}
    video, speech = np.zeros((20, 96, 96), np.uint8), rng.normal(size=12800)
    figure = utterance.draw("ten red coats", texts, video, speech, 2 * speech, probs, LIGHT)
    *_, lips, sound, words = figure.axes
    wrong = [t.get_text() for t in words.texts if t.get_color() == LIGHT["wrong"]]
    assert wrong == ["mad", "ran"]
    for ax, modality in ((lips, "video"), (sound, "audio")):
        drawn = [[bar.get_height() for bar in bars] for bars in ax.containers]
        np.testing.assert_allclose(drawn, probs[modality].T)


def test_the_command_draws_what_models_recognise(
    figures, tmp_path, monkeypatch, experiment, dump_dir
):
    import utterance

    for system in utterance.MODELS.values():
        (tmp_path / f"avsr_train_{system}").symlink_to(experiment)
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(size=9000), 16000)
    shown = []
    draw = utterance.draw
    monkeypatch.setattr(utterance, "draw", lambda *args: shown.append(args) or draw(*args))
    uid = next(iter(read_table(dump_dir / "text")))
    noise = str(tmp_path / "noise.wav")
    words = ["--exp_dir", str(tmp_path), "--data_dir", str(dump_dir), "--noise", noise]
    utterance.main([uid, *words, "--output_dir", str(tmp_path)])
    (said, texts, _, speech, noisy, probs, _), _ = shown
    assert said == read_table(dump_dir / "text")[uid]
    assert texts["sound alone"] == texts["both"]  # the same experiment and noise
    assert np.sum((noisy - speech) ** 2) == pytest.approx(np.sum(speech**2), rel=1e-3)  # 0 dB
    for tokens in probs.values():
        np.testing.assert_allclose(tokens.sum(1), 1, rtol=1e-5)
    for name in ("light", "dark"):
        assert Image.open(tmp_path / f"utterance_{name}.png").size == (1408, 552)
