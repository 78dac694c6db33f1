from espnet_smop.fileio.durations import longest_first, read_durations


def test_longest_first():
    assert longest_first(["a", "b", "c", "d"], {"a": 1, "b": 3, "c": 3}) == ["d", "b", "c", "a"]


def test_durations_are_read_beside_the_first_scp_that_has_them(tmp_path):
    sources = [(str(tmp_path / "text"), "text", "text"), (str(tmp_path / "x.scp"), "video", "v")]
    assert read_durations(sources) == {}
    (tmp_path / "utt2num_frames").write_text("a 50\nb 25\n")
    assert read_durations(sources) == {"a": 2.0, "b": 1.0}
