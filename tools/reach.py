"""Which lines of the sources each test reaches: pytest plugins of ``mutants.py``."""

import os
import pickle
import re
import sys
import sysconfig
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest
from mutations import Mutant


class Reached(NamedTuple):
    """What a run without a mutant recorded.

    Attributes:
        lines: test → its lines ``(path, line)``; "" → those that run while tests are imported.
        seconds: test → its processor seconds, without fixtures that tests share.
        modules: the libraries imported.
    """

    lines: dict[str, set[tuple[str, int]]]
    seconds: dict[str, float]
    modules: list[str]

    def tests(self, mutant: Mutant, longest: float) -> dict[str, float]:
        """Return the tests of at most ``longest`` seconds that reach a mutant's statement.

        A statement that runs on import is tested by each test file that reaches the module.
        """
        at = {(mutant.path, line) for line in mutant.lines or ()}
        tests = {test for test, lines in self.lines.items() if at & lines}
        if not at or "" in tests:
            files = {
                test.partition("::")[0]
                for test, lines in self.lines.items()
                if any(path == mutant.path for path, _ in lines)
            }
            tests = {test for test in self.seconds if test.partition("::")[0] in files}
        return {
            test: seconds
            for test, seconds in self.seconds.items()
            if test in tests and seconds <= longest
        }


class Recorder:
    """Pytest plugin that records the lines each test reaches, and its processor seconds.

    Args:
        root: the repository.
        paths: source files, from there.
        file: to write a ``Reached`` to.
    """

    def __init__(self, root: Path, paths: set[str], file: Path):
        self.file = file
        self.paths = {str(root / path): path for path in paths}
        self.lines = defaultdict(set)  # test or shared fixture → (path, line)
        self.seconds, self.fixtures = {}, {}
        self.now, self.shared = "", 0.0
        tool, events = sys.monitoring.COVERAGE_ID, sys.monitoring.events
        sys.monitoring.use_tool_id(tool, "mutants")
        sys.monitoring.register_callback(tool, events.LINE, self._line)
        sys.monitoring.set_events(tool, events.LINE)

    def _line(self, code, line):
        if path := self.paths.get(code.co_filename):
            self.lines[self.now].add((path, line))
        return sys.monitoring.DISABLE  # until the next test

    def _enter(self, key: str) -> str:
        before, self.now = self.now, key
        sys.monitoring.restart_events()
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        """Record a test."""
        self._enter(item.nodeid)
        start, self.shared = processor_seconds(), 0.0
        result = yield
        self.seconds[item.nodeid] = processor_seconds() - start - self.shared
        self.fixtures[item.nodeid] = item.fixturenames
        self._enter("")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        """Record what makes a fixture that tests share: each of them reaches its lines."""
        if fixturedef.scope == "function":
            return (yield)
        before, start = self._enter(fixturedef.argname), processor_seconds()
        try:
            return (yield)
        finally:
            self.shared += processor_seconds() - start
            self._enter(before)

    def pytest_sessionfinish(self):
        """Write the file."""
        lines = {
            test: self.lines[test].union(*(self.lines[name] for name in names))
            for test, names in self.fixtures.items()
        }
        libraries = sysconfig.get_path("purelib")
        modules = [
            name
            for name, module in list(sys.modules.items())
            if (getattr(module, "__file__", None) or "").startswith(libraries)
        ]
        reached = Reached({"": self.lines[""], **lines}, self.seconds, modules)
        self.file.write_bytes(pickle.dumps(tuple(reached)))


class Chosen:
    """Pytest plugin that leaves the chosen tests."""

    def __init__(self, tests: set[str]):
        self.tests = tests

    def pytest_collection_modifyitems(self, items):
        """Drop the others."""
        items[:] = [item for item in items if item.nodeid in self.tests]


def tests_of(root: Path, path: str) -> set[str]:
    """Return the test files beside a source file, and those that import it."""
    source = Path(path).relative_to("espnet_smop")
    module = ".".join(("espnet_smop", *source.with_suffix("").parts))
    package, _, name = module.rpartition(".")
    beside = root / "test" / source.parent
    found = set(beside.glob("test_*.py" if source.parent.name else f"test_{source.stem}.py"))
    for file in (root / "test").rglob("test_*.py"):
        text = file.read_text()
        if re.search(rf"{module} import |from {package} import .*\b{name}\b", text):
            found.add(file)
    return {str(file.relative_to(root)) for file in found}


def files_of(tests: dict[str, float]) -> list[str]:
    """Return the files of tests, the quickest first: the first failure ends a run."""
    seconds = Counter()
    for test, own in tests.items():
        seconds[test.partition("::")[0]] += own
    return sorted(seconds, key=seconds.get)


def processor_seconds() -> float:
    """Return those of this process and of its children that have ended."""
    return sum(os.times()[:4])
