"""How every command starts and ends: help, subcommands, known errors in one line."""

import argparse
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path


class CommandHelp(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's line breaks and its example; adds the options' defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # Not worth showing: the absence of an option, and what the text says already.
        if (
            action.required
            or action.default in (None, False, [])
            or "default" in (action.help or "")
        ):
            return action.help
        return super()._get_help_string(action)


def run(
    main: Callable[[Sequence[str] | None], int | None], cmd: Sequence[str] | None = None
) -> None:
    """Call a command's ``main`` and exit with the status it returns (None is 0).

    Errors that a user can cause (``OSError``, ``ValueError``, ``RuntimeError`` and what derives
    from them) end in one line on standard error, ``COMMAND: MESSAGE``, and status 1. A traceback
    precedes it where another library raised the error, whose message rarely says what to do, or
    where ``--debug`` is anywhere on the command line.

    Args:
        main: takes the arguments.
        cmd: the arguments; None is those of this process.
    """
    arguments = list(sys.argv[1:] if cmd is None else cmd)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        status = main(arguments)
    except (OSError, ValueError, RuntimeError) as e:
        if debug or not (isinstance(e, OSError) or _is_ours(e)):
            traceback.print_exc()
        spec = sys.modules[main.__module__].__spec__  # None if the file itself is run
        name = spec.name.rpartition(".")[2] if spec else Path(sys.argv[0]).stem
        sys.exit(f"{name}: {_message(e)}")
    sys.exit(status)


def _message(error: Exception) -> str:
    """Return an error's text; of an error in a data loader's process, without its traceback."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        return text.rstrip().rpartition("\n")[2].partition(": ")[2]
    return text


def _is_ours(error: Exception) -> bool:
    """Tell whether an error is of this package, or was raised by it or by the command itself."""
    if type(error).__module__.partition(".")[0] == __package__:
        return True
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals["__name__"]
    return module == "__main__" or module.partition(".")[0] == __package__


def add_subcommands(
    parser: argparse.ArgumentParser,
    commands: Sequence[
        tuple[
            str,
            Callable[[argparse.ArgumentParser], None],
            Callable[[argparse.Namespace], int | None],
        ]
    ],
) -> None:
    """Give a parser subcommands; its ``main`` calls ``args.function(args)``.

    Args:
        parser: of the command.
        commands: for each its name, ``add_arguments(parser)`` and the function that does it. The
            function's docstring is the help: a summary, and an ``Example::``.
    """
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, add_arguments, function in commands:
        description = inspect.getdoc(function)
        subparser = choices.add_parser(
            name,
            help=description.partition("\n")[0],
            description=description,
            formatter_class=CommandHelp,
        )
        add_arguments(subparser)
        subparser.set_defaults(function=function)
