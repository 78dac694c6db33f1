"""``--projector module:Class``, and what is said where that cannot be."""

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from espnet_smop.class_path import check_outside
from espnet_smop.projector.abs_projector import AbsProjector
from espnet_smop.projector.smop import SMoPProjector
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.class_choices import OpenClassChoices
from espnet_smop.tasks.registered import projector_choices

_OWN = """
from espnet_smop.projector.mlp import MLPProjector
from espnet_smop.projector.abs_projector import AbsProjector

class Wider(MLPProjector):
    def __init__(self, input_sizes, output_size, num_layers, *, widening: float = 2.5,
                 hidden_size: int = 16):
        super().__init__(input_sizes, output_size, num_layers,
                         hidden_size=round(widening * hidden_size))

class Unfinished(AbsProjector):
    def forward(self, features, lengths, layers=None):
        return None

class Faulty(MLPProjector):
    def __init__(self, input_sizes, output_size, num_layers):
        None + 1

class Short(MLPProjector):
    def __init__(self, input_sizes):
        pass

class Other:
    pass
"""

_HOSTILE = {
    "exits": b"import sys\nsys.exit(0)\n",
    "quits": b"class Quit(BaseException):\n    pass\nraise Quit('two\\nlines')\n",
    "raises": b"raise ValueError('two\\nlines')\n",
    "unfinished": b"x = (\n",
    "latin": b"x = '\xe9'\n",
    "nul": b"x = 1\0",
    "prints": b"print('printed on import')\nfrom local.own import Wider\n",
    "parts": b"import json\nnumber = 3\ndef function():\n    pass\n",
}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Return a recipe's directory, the working directory, with a class of its own in local/."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "own.py").write_text(_OWN)
    (tmp_path / "local" / "broken.py").write_text("import a_module_that_is_not_there\n")
    for name, code in _HOSTILE.items():
        (tmp_path / "local" / f"{name}.py").write_bytes(code)
    (tmp_path / "queue.py").write_text(_OWN)  # a name of Python's own
    (tmp_path / "base.yaml").write_text(
        "projector: smop\nprojector_conf: {routing: jejr}\nmax_epoch: 2\n"
    )
    (tmp_path / "own.yaml").write_text(
        "base: base.yaml\nprojector: local.own:Wider\nprojector_conf: {widening: 3.5}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the working directory is added to it
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] == "local"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "own.yaml"],
        ["--projector", "local.own:Wider", "--projector_conf", "widening=3.5"],
    ],
)
def test_a_class_of_ones_own_and_its_options(recipe, monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["avsr_train", *words, "--print_config"])
    printed = io.StringIO()
    AVSRTask.print_config(file=printed)
    config = yaml.safe_load(printed.getvalue())
    assert config["projector"] == "local.own:Wider"
    assert config["projector_conf"] == {"widening": 3.5, "hidden_size": 16}


def test_a_model_with_it_and_a_mistake_in_its_options(recipe, model_args):
    args = model_args(projector="local.own:Wider", projector_conf={"widening": 0.5})
    assert type(AVSRTask.build_model(args).projector).__name__ == "Wider"
    args.projector_conf = {"widning": 0.5}
    with pytest.raises(
        ValueError, match="projector_conf has an unknown key 'widning'. Did you mean 'widening'"
    ):
        AVSRTask.build_model(args)
    args.projector_conf = {"input_sizes": {}}
    with pytest.raises(ValueError, match="projector_conf has an unknown key 'input_sizes'"):
        AVSRTask.build_model(args)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local.won:Wider", "no module 'local.won' in the working directory.* mean 'own'"),
        ("locla.own:Wider", "no module 'locla' in the working directory"),
        ("local.broken:X", "local.broken cannot be imported: No module named 'a_module_that"),
        ("local.own:Widr", "local.own has no class 'Widr'. Did you mean 'Wider'"),
        (
            "local.own:Other",
            "local.own:Other is not a subclass of AbsProjector: derive it from espnet_smop.proj",
        ),
        ("local.own:Unfinished", "local.own:Unfinished lacks num_tokens, which .*:AbsProjector"),
        ("local.exits:X", "local.exits cannot be imported: SystemExit: 0$"),
        ("local.quits:X", "local.quits cannot be imported: Quit: two lines$"),
        ("local.raises:X", "local.raises cannot be imported: ValueError: two lines$"),
        ("local.unfinished:X", "local.unfinished cannot be imported: SyntaxError: "),
        ("local.latin:X", "local.latin cannot be imported: SyntaxError: "),
        ("local.nul:X", "local.nul cannot be imported: SyntaxError: "),
        ("local.parts:number", "local.parts:number is a int, not a class"),
        ("local.parts:function", "local.parts:function is a function, not a class"),
        ("local.parts:json", "local.parts:json is a module, not a class"),
        ("json:JSONDecoder", "json:JSONDecoder is not a subclass of AbsProjector"),
        ("os:system", "os:system is a .*function.*, not a class"),
        ("torch:nn", "torch:nn is a module, not a class"),
        (
            "queue:Wider",
            "queue has no class 'Wider': queue.py is hidden by .*queue.py; rename yours",
        ),
        ("local/own.py:Wider", "not a class path of the form module:Class"),
        ("/etc/passwd:X", "not a class path of the form module:Class"),
        ("...:X", "not a class path of the form module:Class"),
        ("local..own:X", "not a class path of the form module:Class"),
        (".local.own:X", "not a class path of the form module:Class"),
        (":X", "not a class path of the form module:Class"),
        ("local.own:", "local.own has no class ''"),
        (":", "not a class path of the form module:Class"),
        ("local.own:Wider:X", "local.own has no class 'Wider:X'"),
        (
            "smpo",
            "unknown class 'smpo': choose mlp, smop, or .*module:Class. Did you mean 'smop'",
        ),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_line(recipe, capsys, name, message):
    with pytest.raises(ValueError, match=f"projector: .*{message}") as raised:
        projector_choices.get_class(name)
    assert "\n" not in str(raised.value)
    (recipe / "bad.yaml").write_text(f"projector: '{name}'\n")
    for words in (["--projector", name], ["--config", "bad.yaml"]):
        with pytest.raises(SystemExit):
            AVSRTask.get_parser().parse_args(words)
        *_, line = capsys.readouterr().err.splitlines()
        assert "error: argument --projector: " in line and name.split(":")[0][:5] in line


@pytest.mark.parametrize("name", [3, True, ["smop"], {"smop": 1}, None])
def test_a_name_is_a_string(name):
    with pytest.raises(ValueError, match="projector is .*, expected the name of a class"):
        projector_choices.get_class(name)


def test_what_an_import_prints_is_no_output(recipe, capsys):
    assert projector_choices.get_class("local.prints:Wider").__name__ == "Wider"
    assert capsys.readouterr() == ("", "printed on import\n")


def test_an_interrupted_import_ends_the_command(recipe):
    (recipe / "local" / "slow.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        projector_choices.get_class("local.slow:X")


def test_files_of_the_working_directory_replace_no_installed_module(tmp_path):
    for name in ("queue", "types", "random", "contextlib", "torch", "yaml", "espnet2"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the user')\n")
    command = [sys.executable, "-m", "espnet_smop.bin.config", "--help"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_are_taken_as_espnet_takes_them():
    assert projector_choices.get_class("SMoP") is SMoPProjector
    parser = argparse.ArgumentParser()
    OpenClassChoices(
        "part", {"one": SMoPProjector}, type_check=AbsProjector, default="one", optional=True
    ).add_arguments(parser)
    assert parser.parse_args(["--part", "ONE"]).part == "one"
    assert parser.parse_args(["--part", "none"]).part is None
    assert parser.parse_args([]).part == "one"


def test_code_that_comes_with_a_model_is_not_run(recipe):
    with pytest.raises(ValueError, match="local.own:Wider is in .* code that comes with a model"):
        check_outside("local.own:Wider", recipe)
    with pytest.raises(ValueError, match="code that comes with a model"):
        check_outside("local.own:Wider", recipe / "local")
    assert "local.own" not in sys.modules
    check_outside("local.own:Wider", recipe / "exp")
    check_outside("espnet_smop.projector.mlp:MLPProjector", recipe)


def test_a_mistake_in_a_class_of_ones_own_keeps_its_error(recipe):
    for name, error, message in (
        ("Faulty", TypeError, "unsupported operand"),
        ("Short", ValueError, "projector: Short cannot be called as required: too many"),
    ):
        args = argparse.Namespace(projector=f"local.own:{name}", projector_conf={})
        with pytest.raises(error, match=message):
            projector_choices.build(args, {"audio": 4}, 8, {"audio": 0})
