"""Shared by all commands: help, subcommands, one-line error messages."""

import argparse
import contextlib
import difflib
import inspect
import itertools
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from espnet_smop.views import TASKS, parse_rates

DEBUG = "--debug"
"""Prints the traceback of an error, wherever it is on the command line."""
_RECIPE_PACKAGES = ("kaldiio", "matplotlib", "tensorboard")
"""Packages of the extra ``recipes``, which `pip install .` leaves out."""
_BOOLEANS = dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "off", "0"), False
)


def str2bool(text: str) -> bool:
    """Parse an option that is ``true`` or ``false``.

    The same as ESPnet's `str2bool`, whose module imports setuptools: half of the time that a small
    command takes.

    Raises:
        ValueError: it is neither.
    """
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(f"expected true or false, not '{text}'") from None


def _is_boolean(action: argparse.Action) -> bool:
    return getattr(action.type, "__name__", "") == str2bool.__name__  # or ESPnet's


class CommandHelp(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's line breaks and its example; adds the options' defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # Not worth showing: an empty default, or one that the text states.
        if (
            action.required
            or action.default is None
            or action.default is False
            or action.default in ("", [], {})
            or "default" in (action.help or "")
        ):
            return action.help
        return super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        if _is_boolean(action):
            return "{true,false}"
        return super()._get_default_metavar_for_optional(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # Other names of an option are its former ones.
        names = action.option_strings
        if len(names) > 1 and names[0].startswith("--"):
            action.option_strings = names[:1]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = names


class CommandParser(argparse.ArgumentParser):
    """A parser with one-line errors that suggest the closest option for an unknown one.

    Booleans have ``type=str2bool``: ``--flag true``, or ``--flag`` alone.

    Args:
        takes_others: ignore unknown options, which another parser takes.
        options: of `argparse.ArgumentParser`.
    """

    def __init__(self, *, takes_others: bool = False, **options: Any):
        super().__init__(**{"formatter_class": CommandHelp, **options})
        self._takes_others = takes_others

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the options; see argparse."""
        words = list(sys.argv[1:] if args is None else args)
        rest = any(a.nargs in (argparse.PARSER, argparse.REMAINDER) for a in self._actions)
        if not self._takes_others and not rest:
            for word in words:
                self._check_option(word)
        return super().parse_known_args(self._complete_booleans(words), namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and the message; ``--help`` shows the usage."""
        message = message.replace("invalid str2bool value:", "expected true or false, not")
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")

    def _check_option(self, word: str) -> None:
        name = word.partition("=")[0]
        known = self._option_string_actions
        if not re.fullmatch(r"--\w[\w-]*", name) or any(k.startswith(name) for k in known):
            return
        nearest = difflib.get_close_matches(name, known, n=1)
        self.error(
            f"there is no option {name}" + (f"; did you mean {nearest[0]}?" if nearest else "")
        )

    def _complete_booleans(self, words: list[str]) -> list[str]:
        completed = []
        for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
            completed.append(word)
            action = self._option_string_actions.get(word)
            if action and _is_boolean(action) and following.lower() not in _BOOLEANS:
                completed.append("true")
        return completed


def device(name: str) -> str:
    """Return the device that ``--device`` names: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        argparse.ArgumentTypeError: there is no such device.
    """
    import torch  # takes seconds, and --help does not need it

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not re.fullmatch(r"cuda(:\d+)?", name):
        raise argparse.ArgumentTypeError(f"expected auto, cpu or cuda, not '{name}'")
    if name != "cpu" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(
            f"{name}, but no GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use cpu"
        )
    return name


def add_output_dir(parser: argparse.ArgumentParser, help: str, **options: Any) -> None:
    """Add ``--output_dir``, by default required, with its former names.

    Args:
        parser: of the command; the option is parsed into ``out``, a path.
        help: what the directory is.
        options: of `argparse.ArgumentParser.add_argument`.
    """
    parser.add_argument(
        "--output_dir", "--out_dir", "--out", dest="out", type=Path, help=help,
        **{"required": True, **options},
    )  # fmt: skip


def rates(text: str) -> dict[str, int]:
    """Parse ``--rates``, such as ``audio=4,video=2``.

    Raises:
        argparse.ArgumentTypeError: the text has another format.
    """
    try:
        return parse_rates(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def add_view_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--task`` and ``--rates``, for models that have several."""
    parser.add_argument(
        "--task",
        choices=tuple(TASKS),
        help="Task to recognise, if the model has several (default: the one with the most inputs)",
    )
    parser.add_argument(
        "--rates",
        type=rates,
        help="Encoder frames per token, if the model has several rates, e.g. audio=16,video=5 "
        "(default: the first of each)",
    )


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """Add options for transcribing media files: model, search, face detection."""
    parser.add_argument("model", help="Package (directory, zip file, hub id) or experiment")
    add_view_options(parser)
    parser.add_argument(
        "--landmarks",
        default="auto",
        help="Source of facial landmarks: auto (a landmark file beside the video, else dlib), "
        "dlib, or your own class as module:Class",
    )
    parser.add_argument("--beam_size", type=int, help="1 is greedy search (default: the model's)")
    parser.add_argument(
        "--max_new_tokens", type=int, help="Maximum tokens per piece (default: the model's)"
    )
    parser.add_argument(
        "--contrast",
        type=float,
        help="Weight of contrastive decoding against the audio alone (default: the model's)",
    )
    parser.add_argument(
        "--device", type=device, default="auto", help="auto (a GPU if there is one), cpu or cuda"
    )
    for base, name in (("whisper", "Whisper"), ("avhubert", "AV-HuBERT"), ("llm", "LLM")):
        parser.add_argument(
            f"--{base}", help=f"Directory or hub id of the {name} (default: the model's)"
        )


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_model_options`, for ``AVSRSpeech2Text.from_pretrained``."""
    names = ("device", "whisper", "avhubert", "llm", "task", "rates")
    search = {name: getattr(args, name) for name in ("beam_size", "max_new_tokens", "contrast")}
    return {name: getattr(args, name) for name in names} | {
        name: value for name, value in search.items() if value is not None
    }


def run(
    main: Callable[[Sequence[str] | None], int | None], cmd: Sequence[str] | None = None
) -> None:
    """Call a command's ``main`` and exit with the status it returns (None is 0).

    Errors that a user can cause (``OSError``, ``ValueError``, ``RuntimeError`` and subclasses) end
    in one line on standard error, ``COMMAND: MESSAGE``, and status 1. A traceback precedes errors
    of other libraries, which rarely say what to do, except for an ``OSError``, which names its
    file. With ``--debug`` it precedes all errors.

    Args:
        main: takes the arguments.
        cmd: the arguments; None is those of this process.
    """
    arguments = list(sys.argv[1:] if cmd is None else cmd)
    debug = DEBUG in arguments
    if debug:
        arguments.remove(DEBUG)
    spec = sys.modules[main.__module__].__spec__  # None if the file itself is run
    name = spec.name.rpartition(".")[2] if spec else Path(sys.argv[0]).stem
    with errors_in_one_line(name, debug=debug):
        sys.exit(main(arguments))


@contextlib.contextmanager
def errors_in_one_line(name: str, *, debug: bool) -> Iterator[None]:
    """Exit with status 1 and ``NAME: MESSAGE`` on the errors that `run` describes.

    Args:
        name: of what failed.
        debug: print every traceback.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as e:
        if debug or not (isinstance(e, OSError) or _is_ours(e)):
            traceback.print_exc()
        sys.exit(f"{name}: {_message(e)}")
    except ModuleNotFoundError as e:
        if debug or e.name not in _RECIPE_PACKAGES:
            raise
        sys.exit(
            f"{name}: {e.name} is not installed, but recipes need it: run tools/setup.sh, or in "
            "the clone pip install '.[recipes]'"
        )


def _message(error: Exception) -> str:
    """Return an error's text, without the traceback that a data loader's process adds."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        return text.rstrip().rpartition("\n")[2].partition(": ")[2]
    return text


def _is_ours(error: Exception) -> bool:
    """Return whether an error is defined or was raised by this package or the command itself."""
    if type(error).__module__.partition(".")[0] == __package__:
        return True
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals["__name__"]
    return module == "__main__" or module.partition(".")[0] == __package__


Subcommand = tuple[
    str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int | None]
]
"""Its name, ``add_arguments(parser)`` and the function that runs it.

The function's docstring is the help: a summary, and an ``Example::``.
"""


def call_subcommand(
    cmd: Sequence[str] | None, *, name: str, description: str, commands: Sequence[Subcommand]
) -> int | None:
    """Call the subcommand that a command line names; return its status.

    Args:
        cmd: the arguments; None is those of this process.
        name: of the command, a module of `espnet_smop.bin`.
        description: the command's help.
        commands: the subcommands.
    """
    parser = CommandParser(prog=f"python -m espnet_smop.bin.{name}", description=description)
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    for word, add_arguments, function in commands:
        text = inspect.getdoc(function)
        subparser = choices.add_parser(
            word, help=text.partition("\n")[0], description=text, formatter_class=CommandHelp
        )
        add_arguments(subparser)
        subparser.set_defaults(function=function)
    args = parser.parse_args(cmd)
    return args.function(args)
