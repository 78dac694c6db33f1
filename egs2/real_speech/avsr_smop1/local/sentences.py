"""Sentences of installed documentation, for synthetic voices to speak."""

import ast
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

LIBRARIES = ("numpy", "scipy", "torch")
"""Packages (BSD licences) whose docstrings follow those of Python's standard library (PSF)."""
_WORD = r"(?:I|[a-z]+(?:'[a-z]+)?)"
_SENTENCE = re.compile(rf"[A-Z]?[a-z]*(?:[ ,-]+{_WORD}){{3,17}}[.;:]")


def words(text: str) -> str:
    """Return a text's words in lower case."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def share(text: str) -> float:
    """Return a number in [0, 1) that is always the same for a text."""
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


def _sentences(root: Path) -> set[str]:
    """Return the sentences of 4 to 18 plain words in the docstrings below a directory."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                found.update(
                    words(s) for s in re.split(r"(?<=[.;:]) ", text) if _SENTENCE.fullmatch(s)
                )
    return found
