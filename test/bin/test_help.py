import argparse
import importlib
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest

import espnet_smop.bin

EGS2 = Path(__file__).resolve().parents[2] / "egs2"
RECIPES = [EGS2 / corpus / "avsr_smop1" for corpus in ("mini_lrs3", "lrs3")]
COMMANDS = sorted(m.name for m in pkgutil.iter_modules(espnet_smop.bin.__path__))
# What they do not know themselves is for a training config.
PASSING_ON = {"cache_feats", "config_modalities"}


class Parsed(Exception):
    pass


def examples(text, name):
    """The example's calls of the command: lines that begin with it, and what they go on with."""
    text = text.replace("\\\n", " ")
    found = re.findall(rf"^ *((?:\w+=\S+ )*python -m espnet_smop\.bin\.{name}\b.*)$", text, re.M)
    return [shlex.split(call.split(" > ")[0]) for call in found]


def subcommands(module, monkeypatch):
    """The names of a command's subcommands; an empty list if it has none."""
    parsers = []
    monkeypatch.setattr(
        argparse.ArgumentParser,
        "parse_known_args",
        lambda self, args=None, namespace=None: parsers.append(self) or sys.exit(),
    )
    with pytest.raises(SystemExit):
        module.main([])
    monkeypatch.undo()
    actions = [a for a in parsers[0]._actions if isinstance(a, argparse._SubParsersAction)]
    return [name for action in actions for name in action.choices]


def help_of(module, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        module.main([*arguments, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_the_command_takes(name, capsys, monkeypatch):
    module = importlib.import_module(f"espnet_smop.bin.{name}")
    calls = []
    for subcommand in subcommands(module, monkeypatch) or [None]:
        text = help_of(module, [subcommand] if subcommand else [], capsys)
        assert "Example" in text
        found = examples(text, name)
        assert found
        if subcommand:
            assert {call[call.index("-m") + 2] for call in found} == {subcommand}
        calls += found
    parse = argparse.ArgumentParser.parse_known_args
    nested = []  # a command's parser calls its subcommand's

    def parse_and_stop(self, args=None, namespace=None):
        nested.append(self)
        parsed, rest = parse(self, args, namespace)
        nested.pop()
        if nested:
            return parsed, rest
        assert not rest or name in PASSING_ON
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    for call in calls:
        assert "…" not in " ".join(call)
        words = call[call.index("-m") + 2 :]
        configs = [w for w in words if w.startswith("conf/")]
        # The configs of an example are one recipe's.
        recipes = [r for r in RECIPES if all((r / w).is_file() for w in configs)]
        assert recipes
        monkeypatch.chdir(recipes[0])
        with pytest.raises(Parsed):
            module.main(words)
