"""The code of the guides runs, and leaves what they say."""

import importlib
import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_smop.bin import prepare_corpus
from espnet_smop.class_path import import_class
from espnet_smop.config import load_config
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import write_video
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.problems import settings_problems
from espnet_smop.train.preprocessor import AVSRPreprocessor

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ROOT / "docs" / "guides"
RECIPES = ROOT / "egs2"


def blocks(name):
    """Return the language and code of each block of a guide."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (GUIDES / name).read_text(), re.M | re.S)


def commands(code):
    """Return the commands of a block, without comments, each in one line."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line) for line in lines) if line]


def run_block(language, code):
    """Run commands of this package (without a shell), or Python."""
    if language == "python":
        exec(compile(code, "guide", "exec"), {"__name__": "guide"})
        return
    assert language == "sh", language
    for line in commands(code):
        python, m, command, *words = shlex.split(line)
        assert (python, m) == ("python", "-m"), line
        importlib.import_module(command).main(words)


def check_options(line, directory):
    """Let a script read its options: with `--help` it does nothing else, after checking them."""
    done = subprocess.run(
        ["bash", "-c", f"{line} --help"], cwd=directory, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Usage:" in done.stdout, (line, done.stderr)


def test_misspelt_options_of_scripts_are_found():
    with pytest.raises(AssertionError, match="no option --tabel"):
        check_options("local/run_paper.sh --tabel 1", RECIPES / "lrs3/avsr_smop1")


def test_guides_are_short():
    for guide in GUIDES.glob("*.md"):
        assert len(guide.read_text().splitlines()) <= 60, guide


@pytest.fixture
def talks(tmp_path, monkeypatch, experiment):
    """Change to a directory that has what the guide on transcription names."""
    rng = np.random.default_rng(0)
    (tmp_path / "talks/day1").mkdir(parents=True)
    for name in ("talk", "talks/day1/a"):
        write_video(tmp_path / f"{name}.mp4", rng.integers(0, 255, (20, 96, 96), dtype=np.uint8))
        np.save(tmp_path / f"{name}.npy", np.tile(rng.uniform(20, 76, (1, 68, 2)), (20, 1, 1)))
    soundfile.write(tmp_path / "talks/b.wav", 0.1 * rng.normal(size=8000), 16000)
    (tmp_path / "MODEL").symlink_to(experiment)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_transcribe(talks, capsys):
    printed = []
    for language, code in blocks("transcribe.md"):
        run_block(language, code)
        printed.append(capsys.readouterr().out)
    assert len(printed) == 3
    assert printed[0].startswith("[0:00:00.00 - 0:00:00.80] ")
    assert printed[1] == ""
    warning, line = printed[2].splitlines()
    assert "no audio stream" in warning and re.fullmatch(r"0\.0 0\.8 .* \(.video.,\)", line)
    written = {str(p.relative_to(talks)) for p in talks.rglob("*.[sj]*") if "MODEL" not in str(p)}
    assert written == {
        "talks/day1/a.srt", "talks/b.srt", "exp/transcripts/day1/a.mp4.json",
        "exp/transcripts/b.wav.json", "exp/transcripts/talk.mp4.json",
    }  # fmt: skip


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Change to a directory with the configs of the mini recipe and an empty `local/`."""
    shutil.copytree(RECIPES / "mini_lrs3/avsr_smop1/conf", tmp_path / "conf")
    (tmp_path / "local").mkdir()
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "local":
            del sys.modules[name]


@pytest.mark.parametrize(
    ("guide", "module", "options"),
    [
        ("projector.md", "qformer_projector", {"tokens_per_second": 8, "num_heads": 4}),
        ("frontend.md", "hubert_frontend", {"model": "facebook/hubert-base-ls960", "dtype": None}),
    ],
)
def test_own_class(guide, module, options, recipe, monkeypatch):
    """Excerpts are those of the tested example, and the config fits the mini recipe."""
    example = ROOT / f"test/examples/{module}.py"
    shutil.copy(example, "local")
    for language, code in blocks(guide):
        file = code.splitlines()[0].removeprefix("# ")
        if language == "yaml":
            Path(file).write_text(code)
        elif language == "python":
            assert file == f"test/examples/{module}.py"
            assert code.split("\n", 1)[1] in example.read_text()
        elif code.startswith("cp "):
            assert commands(code) == [f"cp ../../../test/examples/{module}.py local/"]
        else:
            show, run = commands(code)
            check_options(run, RECIPES / "mini_lrs3/avsr_smop1")
            _, _, command, *words = shlex.split(show)
            assert command == "espnet_smop.bin.avsr_train"
            monkeypatch.setattr(sys, "argv", [command, *words])
            AVSRTask.print_config(file=(printed := io.StringIO()))
            config = yaml.safe_load(printed.getvalue())
            kind = module.split("_")[1].replace("frontend", "audio_frontend")
            assert config[kind].startswith(f"local.{module}:")
            assert options.items() <= config[f"{kind}_conf"].items()
            words[words.index("--print_config") :] = ["--output_dir", "exp"]
            args = AVSRTask.get_parser().parse_args(words)
            assert not list(settings_problems(args))


def test_corpus(recipe):
    clips = recipe / "a corpus"
    clips.mkdir()
    for name in ("s1_a", "s1_b", "s2_a", "s3_a"):
        soundfile.write(clips / f"{name}.wav", np.zeros(6400), 16000)
    lines = [f"{name} place blue\n" for name in ("s1_a", "s1_b", "s2_a", "s3_a", "s4_lost")]
    (clips / "transcripts.txt").write_text("".join(lines))
    made = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    for name in ("TEMPLATE", "lrs3", "own_corpus"):
        shutil.copytree(RECIPES / name, recipe / "egs2" / name, symlinks=True, ignore=made)
    directory = recipe
    for language, code in blocks("corpus.md"):
        if language == "python":
            Path("local/my_corpus.py").write_text(code)
        for line in commands(code) if language == "sh" else ():
            if line.startswith("cd "):
                directory /= line.removeprefix("cd ")
            elif "setup.sh" in line:
                subprocess.run(shlex.split(line), cwd=directory, check=True)
            else:
                check_options(line, directory)
    reader = re.search(r"--reader (\S+)\"", (GUIDES / "corpus.md").read_text())[1]
    prepare_corpus.main([reader, "--root", str(clips), "--out_dir", "data", "--test_share", "0.1"])
    sets = {name: read_table(Path("data") / name / "text") for name in ("train", "valid", "test")}
    assert sorted(len(table) for table in sets.values()) in ([1, 1, 2], [1, 1, 1])
    assert "s4_lost.wav" in Path("data/train/prepare.txt").read_text()


def test_noise(recipe, experiment):
    (recipe / "MODEL").symlink_to(experiment)
    rng = np.random.default_rng(0)
    soundfile.write("noise.wav", 0.1 * rng.normal(size=16000), 16000)
    speech = rng.normal(size=16000).astype(np.float32)
    plain = {"speech_normalise": False, "speech_mask": None}
    for language, code in blocks("noise.md"):
        file = code.splitlines()[0].removeprefix("# ")
        if language == "yaml" and "white" in file:
            Path(file).write_text(code)
            white = load_config(file)
        elif language == "yaml":
            Path(file).write_text(code)
            conf = load_config(file)["preprocessor_conf"]
            preprocessor = AVSRPreprocessor(True, **{**conf, **plain})
            heard = [preprocessor("", {"speech": speech})["speech"] for _ in range(100)]
            assert 30 < sum(not np.array_equal(x, speech) for x in heard) < 70
        elif language == "sh":
            driver, table = commands(code)
            check_options(driver, RECIPES / "mini_lrs3/avsr_smop1")
            assert table == "python -m espnet_smop.bin.results table exp"
        elif file == "local/white_noise.py":
            Path(file).write_text(code)
        else:
            run_block(language, code)
    chosen = import_class(white["preprocessor"], AVSRPreprocessor)
    preprocessor = chosen(True, **{**plain, **white["preprocessor_conf"]})

    def ratio(heard):
        return round(10 * np.log10(np.square(speech).sum() / np.square(heard - speech).sum()), 2)

    heard = [preprocessor("", {"speech": speech})["speech"] for _ in range(60)]
    assert {ratio(noisy) for noisy in heard} == {0, 5, 10}
    decoding = {"noise": {"file": "noise.wav", "snr": 5.0}, "noise_in_validation": True}
    preprocessor = chosen(False, **plain, **decoding)
    one, again = (preprocessor("a", {"speech": speech})["speech"] for _ in range(2))
    assert np.array_equal(one, again) and ratio(one) == 5


def test_python(recipe, experiment, dump_dir, capsys):
    (recipe / "MODEL").symlink_to(experiment)
    uid, wav = max(
        read_table(dump_dir / "wav.scp").items(), key=lambda x: Path(x[1]).stat().st_size
    )
    Path("a.flac").symlink_to(wav)
    Path("a.mkv").symlink_to(read_table(dump_dir / "video.scp")[uid])
    code = "".join(code for _, code in blocks("python.md"))
    run_block("python", code)
    *nbest, vsr, whole, part, audio, video = capsys.readouterr().out.splitlines()
    assert [float(line.split()[0]) for line in nbest] == sorted(
        (float(line.split()[0]) for line in nbest), reverse=True
    )
    assert len(nbest) == 2 and vsr
    assert whole == f"whole {nbest[0].partition(' ')[2]}" and part.startswith("part ")
    for line, name in ((audio, "audio"), (video, "video")):
        assert re.fullmatch(rf"{name} {name} \[(\[[0-2], [0-2]\](, )?){{3}}\]", line)


def test_gpus():
    page = (GUIDES / "gpus.md").read_text()
    lines = [line for _, code in blocks("gpus.md") for line in commands(code)]
    recipe = ROOT / lines.pop(0).removeprefix("cd ")
    for line in lines:
        check_options(line, recipe)
    table = re.findall(r"^\| `(\w+)`.*?\| ([\d,]+).*?\| (\d) \|", page, re.M)
    assert len(table) == 3
    for machine, frames, batches in table:
        conf = load_config(recipe / f"conf/machine/{machine}.yaml")
        found = conf["batch_limits"]["frames"], conf["accum_grad"]
        assert found == (int(frames.replace(",", "")), int(batches))


@pytest.fixture
def public_checkpoint(tmp_path, monkeypatch, tiny_whisper, tiny_avhubert, make_llm):
    """Change to a directory with `llama_smop.pth` and its base models; return the state dict."""
    monkeypatch.chdir(tmp_path)
    bases = {
        "meta-llama/Llama-3.2-1B": make_llm("llama3"),
        "openai/whisper-medium.en": tiny_whisper,
        "downloads/avhubert_large_lrs3_vox": tiny_avhubert,
    }
    for name, directory in bases.items():
        Path(name).parent.mkdir()
        Path(name).symlink_to(directory)
    public = runpy.run_path(str(ROOT / "test/checkpoint/llama_smop/public_model.py"))["PublicModel"]
    torch.manual_seed(0)
    llm, whisper, avhubert = bases.values()
    state = public(llm=llm, whisper=whisper, avhubert=avhubert, kind="dense").state_dict()
    torch.save(state, "llama_smop.pth")
    return state


def test_published_checkpoints(public_checkpoint):
    for language, code in blocks("published_checkpoints.md"):
        assert language == "sh"
        for line in commands(code):
            if line.startswith("python"):
                run_block(language, line)
            elif line.startswith("cd "):
                recipe = ROOT / line.removeprefix("cd ")
            else:
                check_options(line, recipe)
    back = torch.load("exp/llama_smop_further.pth", weights_only=True)
    assert list(back) == list(public_checkpoint)
    assert all(torch.equal(back[name], value) for name, value in public_checkpoint.items())


def test_report(recipe, experiment, dump_dir, capsys):
    decode = runpy.run_path(str(ROOT / "test/bin/test_results_report.py"))["decode"]
    for system, wrong in (("avsr_a", 1), ("avsr_b", 3)):
        shutil.copytree(experiment, Path("exp") / system)
        decode(Path("exp") / system / "dec/test", dump_dir, wrong)
        decode(Path("exp") / system / "dec/test_babble_snr5", dump_dir, wrong + 2)
    data = Path("dump/raw/test")
    shutil.copytree(dump_dir, data)
    utterances = [line.split()[0] for line in (data / "text").read_text().splitlines()]
    (data / "phones.ctm").write_text("".join(f"{uid} 1 0.1 0.2 a\n" for uid in utterances))
    [(language, code)] = blocks("report.md")
    capsys.readouterr()
    run_block(language, code)
    page, *table = capsys.readouterr().out.splitlines()
    assert page == "exp/report/report.html"
    assert {"avsr_a", "avsr_b"} <= set(re.findall(r"avsr_\w", " ".join(table)))
    headings = re.findall(r"<h2.*?>(.*?)</h2>", Path(page).read_text())
    text = (GUIDES / "report.md").read_text()
    rows = re.findall(r"^\| ([\w ]*)\| (`[^|]*`) \|", text, re.M)
    assert len(rows) == 7
    assert [section.strip() for section, _ in rows if section.strip()] == headings
    for _, files in rows:
        for name in re.findall("`(.*?)`", files):
            name = name.replace("SYSTEM", "a").replace("SET", "test").replace("NOISE", "babble")
            name = name.replace("LEVEL", "babble5")
            assert (Path("exp/report/figures") / name).with_suffix(".csv").is_file(), name


def test_demo(recipe, experiment, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="needs the extra `demo`: pip install '.[demo]'")
    from espnet_smop.demo import page

    served = []
    monkeypatch.setattr(page, "serve", lambda shown, **options: served.append(options))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for folder in ("exp", "downloads/mini_lrs3/test/s1", "dump/noise"):
        Path(folder).mkdir(parents=True)
    Path("exp/avsr_train_avsr_smop3_dedr").symlink_to(experiment)
    Path("downloads/mini_lrs3/test/s1/a.mp4").write_bytes(b"clip")
    soundfile.write("dump/noise/babble.wav", np.zeros(16000), 16000)
    [(_, code)] = blocks("demo.md")
    install, demo = commands(code)
    assert install == 'pip install "../../..[demo,landmarks]"'
    run_block("sh", demo)
    [options] = served
    text = (GUIDES / "demo.md").read_text()
    assert f"{options['max_megabytes']:g} MB" in text and options["host"] == "127.0.0.1"
    assert f"{page.WAITING} visitors can wait" in text
