import numpy as np
import pytest

from espnet_smop.base_model import locate
from espnet_smop.command import run


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
