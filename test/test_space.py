"""The folder `space/` is what the hub and this package take."""

import runpy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement

from espnet_smop.bin import demo

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "space"


def head():
    return yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])


@pytest.fixture
def extra(monkeypatch):
    """Return a function from the name of an extra of setup.py to its requirements."""
    found = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: found.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    return lambda name: {r.name: r for r in map(Requirement, found["extras_require"][name])}


def test_the_head_names_what_there_is(extra):
    fields = head()
    assert fields["sdk"] == "gradio" and (SPACE / fields["app_file"]).is_file()
    assert fields["sdk_version"] in extra("demo")["gradio"].specifier
    [line] = [x for x in (SPACE / "requirements.txt").read_text().splitlines() if x[0] != "#"]
    needed = Requirement(line)
    assert needed.name == "espnet_smop" and {"demo", "landmarks"} == needed.extras


def test_the_version_tested(extra):
    try:
        installed = version("gradio")
    except PackageNotFoundError:
        pytest.skip("needs the extra `demo`: pip install '.[demo]'")
    assert installed in extra("demo")["gradio"].specifier


def test_the_app_calls_the_command(monkeypatch):
    called = []
    monkeypatch.setenv("MODEL", "me/model")
    monkeypatch.setattr(demo, "main", called.append)
    runpy.run_path(str(SPACE / "app.py"))
    [words] = called
    args = demo.get_parser().parse_args(words)
    assert (args.model, args.host, args.port) == ("me/model", "0.0.0.0", 7860)
