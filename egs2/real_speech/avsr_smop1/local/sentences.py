"""Sentences for synthetic voices: from documentation, from quotations, and lists of words."""

import ast
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np

LIBRARIES = ("numpy", "scipy", "torch")
"""Packages (BSD licences) whose docstrings follow those of Python's standard library (PSF)."""
FORTUNES = Path("/usr/share/games/fortunes")
"""Quotations and jokes from Debian's package fortunes, with everyday words."""

_CLASSES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million",
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth "
    "fiftieth sixtieth seventieth eightieth ninetieth hundredth thousandth millionth",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar "
    "papa quebec romeo sierra tango uniform victor whiskey yankee zulu",
    "january february march april may june july august september october november december",
    "monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday",
)
"""Words that texts rarely cover: numbers, letters, the spelling alphabet, months, days."""

_WORD = r"(?:I|[a-z]+(?:'[a-z]+)?)"
_SENTENCE = re.compile(rf"[A-Z]?[a-z]*(?:[ ,-]+{_WORD}){{3,17}}[.;:!?]")


def words(text: str) -> str:
    """Return a text's words in lower case."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def share(text: str) -> float:
    """Return a number in [0, 1) that depends only on the text."""
    return crc32(text.encode()) / 2**32


def standard_library() -> list[str]:
    """Return the sentences of Python's standard library, in an order that looks random."""
    return sorted(_sentences(Path(sysconfig.get_path("stdlib"))), key=share)


def libraries() -> Iterator[set[str]]:
    """Yield the sentences of each library that is installed."""
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            yield _sentences(Path(spec.origin).parent)


def quotations(directory: Path = FORTUNES) -> set[str]:
    """Return the sentences of 4 to 18 plain words in the files of Debian's package fortunes."""
    found = set()
    for path in sorted(p for p in directory.iterdir() if not p.suffix and not p.is_symlink()):
        for entry in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            said = " ".join(entry.split("\n\t\t-- ")[0].split())  # without the author
            found.update(_plain(said))
    return found


def word_lists(count: int) -> Iterator[str]:
    """Yield random lists of three to eight words of a kind: numbers, letters, days and the like."""
    rng = np.random.default_rng(0)
    for number in range(count):
        choices = _CLASSES[number % len(_CLASSES)].split()
        yield " ".join(rng.choice(choices, rng.integers(3, 9)))


def _plain(text: str) -> Iterator[str]:
    """Yield the sentences of plain words, without punctuation."""
    for sentence in re.split(r"(?<=[.;:!?]) ", text):
        if _SENTENCE.fullmatch(sentence):
            yield words(sentence)


def _sentences(root: Path) -> set[str]:
    """Return the sentences of 4 to 18 plain words in the docstrings below a directory."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                found.update(_plain(text))
    return found
