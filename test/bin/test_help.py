import argparse
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import espnet_smop.bin
from espnet_smop.command import CommandHelp, device, str2bool
from espnet_smop.results.intervals import UNIT_HELP, UNITS

EGS2 = Path(__file__).resolve().parents[2] / "egs2"
RECIPES = [EGS2 / corpus / "avsr_smop1" for corpus in ("mini_lrs3", "lrs3", "real_speech")]
COMMANDS = sorted(m.name for m in pkgutil.iter_modules(espnet_smop.bin.__path__))
# What they do not know themselves is for the training.
PASSING_ON = {"cache_feats", "check_config"}


class Parsed(Exception):
    pass


def parser_of(module, monkeypatch):
    """Return the parser that a command makes."""
    made = []

    def parse_and_stop(self, args=None, namespace=None):
        made.append(self)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
        with pytest.raises(Parsed):
            module.main([])
    return made[0]


def subparsers(parser):
    """Return the parsers of a command's subcommands by name, at all levels."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                below = subparsers(subparser)
                found |= {f"{name} {n}": p for n, p in below.items()} or {name: subparser}
    return found


# Parsers of ESPnet
OWN_PARSER = {"avsr_train", "avsr_inference"}
FORMER_NAMES = {"--out_dir", "--exp", "--expdir"}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_follow_one_convention(name, monkeypatch):
    module = importlib.import_module(f"espnet_smop.bin.{name}")
    parser = parser_of(module, monkeypatch)
    for subcommand, own in (subparsers(parser) or {"": parser}).items():
        said = f"{name} {subcommand}"
        # Defaults are shown, and examples keep their line breaks.
        assert issubclass(own.formatter_class, CommandHelp), said
        for action in own._actions:
            options = set(action.option_strings)
            if name not in OWN_PARSER:
                assert action.help, (said, options)
                assert not isinstance(
                    action, argparse._StoreTrueAction | argparse._StoreFalseAction
                ), (said, options)
                if isinstance(action.default, bool):
                    assert action.type is str2bool, (said, options)
                assert action.option_strings[:1] == [] or (
                    action.option_strings[0] not in FORMER_NAMES
                ), (said, options)
            if "--device" in options:
                assert (action.type, action.default) == (device, "auto"), said
            if "--unit" in options:
                assert (action.choices, action.default) == (UNITS, UNITS[0]), said
                assert action.help == UNIT_HELP


def test_all_commands_with_intervals_let_choose_the_unit(monkeypatch):
    having = {
        f"{name} {subcommand}"
        for name in ("results", "paper")
        for subcommand, own in subparsers(
            parser_of(importlib.import_module(f"espnet_smop.bin.{name}"), monkeypatch)
        ).items()
        if any("--unit" in action.option_strings for action in own._actions)
    }
    assert having == {"results table", "results report", "paper table"}


def examples(text, name):
    """The example's calls of the command: lines that begin with it, and what they go on with."""
    text = text.replace("\\\n", " ")
    found = re.findall(rf"^ *((?:\w+=\S+ )*python -m espnet_smop\.bin\.{name}\b.*)$", text, re.M)
    return [shlex.split(call.split(" > ")[0]) for call in found]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_the_command_takes(name, monkeypatch, capsys):
    module = importlib.import_module(f"espnet_smop.bin.{name}")
    parser = parser_of(module, monkeypatch)
    assert parser.description
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(self, args=None, namespace=None):
        _, rest = parse(self, args, namespace)
        assert not rest or name in PASSING_ON
        raise Parsed(self.prog)

    for subcommand, own in (subparsers(parser) or {"": parser}).items():
        with pytest.raises(SystemExit) as stopped:
            module.main([*subcommand.split(), "--help"])
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        assert "Example" in text, subcommand
        calls = examples(text, f"{name} {subcommand}".strip())
        assert calls, subcommand
        for call in calls:
            assert "…" not in " ".join(call)
            words = call[call.index("-m") + 2 :]
            configs = [w for w in words if w.startswith("conf/")]
            # The configs of an example are one recipe's.
            recipes = [r for r in RECIPES if all((r / w).is_file() for w in configs)]
            assert recipes, words
            with monkeypatch.context() as patch:
                patch.chdir(recipes[0])
                patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
                with pytest.raises(Parsed, match=re.escape(own.prog)):
                    module.main(words)
