import pytest

from espnet_smop.corpus.datadir import DataDirError, check, write_data_dir
from espnet_smop.corpus.filter import Limits, filter_utterances
from espnet_smop.fileio.table import read_table


@pytest.fixture
def formatted(tmp_path):
    texts = {"a": "fine", "b": "short", "c": "long", "d": "", "e": "x" * 30, "f": "edge"}
    seconds = {"a": 2, "b": 0.4, "c": 17, "d": 2, "e": 2, "f": 16}
    write_data_dir(
        tmp_path / "org",
        {
            "wav.scp": {u: f"{u}.flac" for u in texts},
            "video.scp": {u: f"{u}.mkv" for u in texts},
            "text": texts,
            "utt2spk": {u: "s" for u in texts},
            "utt2num_samples": {u: round(s * 16000) for u, s in seconds.items()},
            "utt2num_frames": {u: round(s * 25) for u, s in seconds.items()},
        },
    )
    return tmp_path / "org"


def test_filter_says_what_was_dropped(formatted, tmp_path):
    line = filter_utterances(formatted, tmp_path / "kept", Limits(max_chars=20))
    assert line.startswith(f"{formatted}: 2 utterances kept, 4 dropped (")
    assert set(read_table(tmp_path / "kept/text")) == {"a", "f"}
    assert check(tmp_path / "kept") == []
    assert read_table(tmp_path / "kept/dropped.txt") == {
        "b": "0.40 shorter than 0.5 s",
        "c": "17.00 longer than 16 s",
        "d": "2.00 empty text",
        "e": "2.00 more than 20 characters",
    }


def test_a_corpus_of_one_modality(formatted, tmp_path):
    for name in ("wav.scp", "utt2num_samples"):
        (formatted / name).unlink()
    line = filter_utterances(formatted, tmp_path / "kept", Limits())
    assert line.startswith(f"{formatted}: 3 utterances kept, 3 dropped (")


def test_errors(formatted, tmp_path):
    with pytest.raises(DataDirError, match="nothing is left; widen the limits"):
        filter_utterances(formatted, tmp_path / "kept", Limits(min_chars=100))
    (formatted / "utt2num_samples").unlink()
    with pytest.raises(DataDirError, match="utt2num_samples: missing; run stage 3"):
        filter_utterances(formatted, tmp_path / "kept", Limits())
