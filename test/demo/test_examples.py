import pytest

from espnet_smop.demo.examples import digest, find_examples, landmarks_by_content


def test_examples_are_spread_over_a_folder(tmp_path):
    for speaker in "abcd":
        (tmp_path / speaker).mkdir()
        for clip in range(3):
            (tmp_path / speaker / f"{clip}.mp4").write_text(f"{speaker}{clip}")
        (tmp_path / speaker / "0.npy").write_text("points")
        (tmp_path / speaker / "words.wav").touch()
    found = find_examples(tmp_path, video=True, count=4)
    assert [str(p.relative_to(tmp_path)) for p in found] == [f"{s}/0.mp4" for s in "abcd"]
    assert len(find_examples(tmp_path, video=True, count=50)) == 12
    assert len(find_examples(tmp_path, video=False, count=50)) == 16
    known = landmarks_by_content(find_examples(tmp_path, video=True, count=50))
    assert len(known) == 4
    (tmp_path / "upload.mp4").write_text("b0")
    assert known[digest(tmp_path / "upload.mp4")] == tmp_path / "b/0.npy"


def test_a_folder_without_clips(tmp_path):
    with pytest.raises(ValueError, match=r"--example .*: has no \.mp4, .* file"):
        find_examples(tmp_path, video=True)
