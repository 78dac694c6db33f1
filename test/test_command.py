import argparse
import sys

import numpy as np
import pytest
from espnet2.utils import types

from espnet_smop.base_model import locate
from espnet_smop.command import (
    CommandHelp,
    CommandParser,
    call_subcommand,
    device,
    run,
    str2bool,
)


def absent(cmd):
    locate("./absent")


@pytest.mark.parametrize("words", [[], ["--debug"], ["--debug", "x"]])
def test_an_error_ends_in_one_line_and_with_debug_in_its_traceback(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(absent, words)
    assert stopped.value.code.startswith("test_command: base model './absent' is not a directory")
    assert ("Traceback" in capsys.readouterr().err) == ("--debug" in words)


def test_an_error_of_another_library_comes_with_its_traceback(capsys):
    with pytest.raises(SystemExit, match="test_command: shape mismatch"):
        run(lambda cmd: np.broadcast_shapes((2,), (3,)), [])
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_file_is_one_line_whoever_opens_it(tmp_path, capsys):
    with pytest.raises(SystemExit, match="none.npy"):
        run(lambda cmd: np.load(tmp_path / "none.npy"), [])
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("status", [None, 0, 1])
def test_the_status_is_what_main_returns(status):
    with pytest.raises(SystemExit) as stopped:
        run(lambda cmd: status if cmd == ["a"] else 9, ["a", "--debug"])
    assert stopped.value.code == status


def test_programming_errors_are_not_caught():
    with pytest.raises(ZeroDivisionError):
        run(lambda cmd: 1 // 0, [])


def parser_of(**options):
    parser = CommandParser(prog="a_command", **options)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--beam_size", type=int, default=3, help="hypotheses")
    parser.add_argument("--check", type=str2bool, default=False, help="only check")
    parser.add_argument("--output_dir", "--out_dir", dest="out_dir", help="where results go")
    return parser


def subcommand(args):
    """Do one thing."""
    return {"seven": 7}[args.sets]


def add_options(parser):
    parser.add_argument("--sets", required=True)


COMMANDS = [("one", add_options, subcommand)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--baem_size", "3"], "there is no option --baem_size; did you mean --beam_size?"),
        (["--beam-size", "3"], "there is no option --beam-size; did you mean --beam_size?"),
        (["--zzz"], "there is no option --zzz"),
        (["--check=maybe"], "argument --check: expected true or false, not 'maybe'"),
        (["--beam_size", "three"], "argument --beam_size: invalid int value: 'three'"),
    ],
)
def test_a_wrong_option_is_two_lines(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser_of().parse_args(words)
    error = capsys.readouterr().err
    assert error == f"a_command: {message}\nTry 'a_command --help'.\n"


def test_a_wrong_option_of_a_subcommand_precedes_what_is_missing(capsys):
    options = {"name": "a_command", "description": "", "commands": COMMANDS}
    with pytest.raises(SystemExit):
        call_subcommand(["one", "--stes", "x"], **options)
    assert "a_command one: there is no option --stes; did you mean --sets?" in (
        capsys.readouterr().err
    )


def test_a_subcommand_is_called_with_its_options_and_its_status_returned():
    options = {"name": "a_command", "description": "", "commands": COMMANDS}
    assert call_subcommand(["one", "--sets", "seven"], **options) == 7


def test_booleans_are_true_or_false_or_alone():
    parse = parser_of().parse_args
    assert not parse([]).check
    for words in (["--check"], ["--check", "true"], ["--check", "a"], ["--check", "--beam_size=1"]):
        assert parse(words).check
    assert not parse(["--check", "false", "a"]).check
    assert parse(["--check", "a", "b"]).files == ["a", "b"]


def test_former_names_work_and_are_not_shown():
    parser = parser_of()
    assert parser.parse_args(["--out_dir", "x"]).out_dir == "x"
    assert parser.parse_args(["--output_dir", "x"]).out_dir == "x"
    shown = parser.format_help()
    assert "--output_dir" in shown and "--check {true,false}" in shown
    assert "  --output_dir, " not in shown and ", --out_dir" not in shown


def test_options_for_another_parser_are_left_to_it():
    _, others = parser_of(takes_others=True).parse_known_args(["--check", "--max_epoch", "3"])
    assert others == ["--max_epoch"]  # 3 is a file


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device("auto") == device("cpu") == "cpu"
    for name, message in (("cuda", "no GPU is visible"), ("gpu", "expected auto, cpu or cuda")):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            device(name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device("auto") == "cuda" and device("cuda:1") == "cuda:1"


def test_the_help_shows_a_default_of_zero_and_no_empty_one():
    parser = argparse.ArgumentParser(formatter_class=CommandHelp)
    for name, default in (("a", 0), ("b", 0.0), ("c", ""), ("d", {}), ("e", []), ("f", False)):
        parser.add_argument(f"--{name}", default=default, help=f"option {name}")
    text = parser.format_help()
    assert "option a (default: 0)" in text and "option b (default: 0.0)" in text
    assert text.count("default") == 2


def test_what_only_recipes_need_is_named_with_its_remedy(monkeypatch):
    def main(_):
        import matplotlib  # noqa: F401

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"matplotlib is not installed.*pip install '\.\[recipes"):
        run(main, [])
    with pytest.raises(ModuleNotFoundError):
        run(main, ["--debug"])
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        run(lambda _: __import__("nowhere"), [])


def test_a_boolean_is_what_espnet_takes_for_one():
    for text in ("true", "T", "Yes", "y", "on", "1", "False", "f", "no", "N", "off", "0"):
        assert str2bool(text) is types.str2bool(text)
    for read in (str2bool, types.str2bool):
        with pytest.raises(ValueError):
            read("maybe")
    parser = argparse.ArgumentParser(formatter_class=CommandHelp)
    parser.add_argument("--one", type=str2bool, help="ours")
    parser.add_argument("--two", type=types.str2bool, help="ESPnet's")
    assert parser.format_help().count("{true,false}") == 4  # each in usage and list
