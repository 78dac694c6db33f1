import pytest

from espnet_smop.results.transcripts import (
    ScoringError,
    characters,
    check_same_ids,
    read_text,
)


def test_read_text_keeps_empty_transcripts(tmp_path):
    path = tmp_path / "text"
    path.write_text("a hello  world \nb\nc x\n")
    assert read_text(path) == {"a": "hello  world", "b": "", "c": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("a x\na y\n", "text:2: duplicate id a"), ("", "is empty"), (None, "No such file")],
)
def test_read_text_names_the_file(tmp_path, content, message):
    path = tmp_path / "text"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ScoringError, match=message) as e:
        read_text(path)
    assert str(path) in str(e.value)


def test_different_ids_are_named():
    with pytest.raises(ScoringError, match=r"HYP lacks 1 of 2 ids: b; HYP has 1 extra ids: c"):
        check_same_ids(["a", "b"], ["a", "c"], reference_name="REF", other_name="HYP")
    check_same_ids(["a", "b"], ["b", "a"], reference_name="REF", other_name="HYP")


def test_characters_have_espnets_space():
    assert characters("A  BC") == ["A", "<space>", "B", "C"]
