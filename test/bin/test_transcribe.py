"""`transcribe` on many files: folders, places of transcripts, resuming, failures."""

import json
import shutil

import av
import numpy as np
import pytest
import soundfile

from espnet_smop.bin import transcribe
from espnet_smop.bin.transcribe import find_jobs, main
from espnet_smop.command import run
from espnet_smop.corpus.media import MediaError
from espnet_smop.inference import AVSRSpeech2Text

CLIPS, FRAMES = 50, 5


def say(path, frames=FRAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    soundfile.write(path, 0.1 * rng.normal(size=frames * 640), 16000)
    return path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Fifty short clips and three that cannot be read, in a tree of folders."""
    root = tmp_path_factory.mktemp("talks")
    for i in range(CLIPS):
        say(root / f"day {i % 3}" / ("a" * (i % 2)) / f"{i:02d}.{('wav', 'FLAC')[i % 2]}")
    (root / "broken.mp4").write_bytes(b"no video")
    (root / "day 1/cut.wav").write_bytes((root / "day 0/00.wav").read_bytes()[:20])
    touch(root / "day 2/empty.mkv")
    (root / "notes.txt").write_text("of the speaker")
    (root / "day 1/._07.wav").write_bytes(b"what another system notes about a file")
    return root


def test_fifty_clips_and_what_cannot_be_read(
    clips, experiment, tmp_path, tmp_path_factory, caplog, monkeypatch
):
    loaded = []
    load = AVSRSpeech2Text.from_pretrained
    monkeypatch.setattr(
        AVSRSpeech2Text, "from_pretrained", lambda *a, **k: loaded.append(a) or load(*a, **k)
    )
    empty = tmp_path_factory.mktemp("nothing")
    words = [str(experiment), str(clips), str(empty), "--output_dir", str(tmp_path)]
    words += ["--format", "vtt"]
    with pytest.raises(SystemExit) as stopped:
        run(main, [*words, "--beam_size", "1", "--max_new_tokens", "3"])
    message = stopped.value.code
    summary, *failed = message.splitlines()
    assert summary == "transcribe: 4 of 54 files could not be transcribed:"
    assert [line.strip().partition(": ")[0] for line in failed] == [
        *(str(clips / name) for name in ("broken.mp4", "day 1/cut.wav", "day 2/empty.mkv")),
        str(empty),
    ]
    assert "has no .mp4, " in failed[3]
    assert ".ogg file; give another folder" in failed[3]
    assert "damaged, or not a media file" in failed[0] and "found no audio or video" in failed[2]
    assert "50 transcribed, 4 failed" in caplog.text and len(loaded) == 1
    written = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    media = [p for p in clips.rglob("[0-9]*") if p.is_file()]
    assert len(media) == CLIPS
    assert written == sorted(p.relative_to(clips).with_suffix(".vtt") for p in media)
    for path in written:
        with av.open(str(tmp_path / path)) as container:
            for cue in container.demux(container.streams.subtitles[0]):
                if cue.size:
                    assert (cue.pts, cue.duration) == (0, FRAMES * 40) and bytes(cue)

    # Again: only what failed is tried; a removed transcript is made again.
    changed = {p: (tmp_path / p).stat().st_mtime_ns for p in written}
    (tmp_path / written[0]).unlink()
    caplog.clear()
    with pytest.raises(SystemExit) as stopped:
        run(main, words)
    assert "4 of 54 files" in stopped.value.code
    assert "1 transcribed, 4 failed" in caplog.text and "49 have a transcript" in caplog.text
    now = {p: (tmp_path / p).stat().st_mtime_ns for p in written}
    assert [p for p in written if now[p] != changed[p]] == written[:1]


def test_transcripts_are_beside_their_files_and_kept(experiment, tmp_path, capsys, caplog):
    say(tmp_path / "a.wav")
    say(tmp_path / "b/a.wav")
    (tmp_path / "a.txt").write_text("a corpus's own text")
    main([str(experiment), str(tmp_path)])
    lines = {p: p.read_text() for p in (tmp_path / "a.wav.txt", tmp_path / "b/a.wav.txt")}
    assert all(text.startswith("[0:00:00.00 - 0:00:00.20] ") for text in lines.values())
    assert (tmp_path / "a.txt").read_text() == "a corpus's own text"

    (tmp_path / "a.wav.txt").write_text("corrected")
    main(["no/model/is/loaded", str(tmp_path)])
    assert (tmp_path / "a.wav.txt").read_text() == "corrected"
    assert "0 transcribed, 0 failed" in caplog.text and "2 have a transcript" in caplog.text
    main([str(experiment), str(tmp_path), "--overwrite", "true"])
    assert {p: p.read_text() for p in lines} == lines
    assert capsys.readouterr().out == ""


def test_a_failed_file_leaves_its_transcript(experiment, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    (tmp_path / "a.wav.json").write_text("of yesterday")
    words = [str(experiment), str(tmp_path), "--format", "json", "--overwrite", "true"]
    with pytest.raises(SystemExit, match="1 of 1 files"):
        run(main, words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "a.wav.json"]
    assert (tmp_path / "a.wav.json").read_text() == "of yesterday"


def test_standard_output(experiment, tmp_path, capsys):
    files = [str(say(tmp_path / f"{name}.wav")) for name in "ab"]
    main([str(experiment), files[0], "--format", "srt"])
    assert capsys.readouterr().out.startswith("1\n00:00:00,000 --> 00:00:00,200\n")
    main([str(experiment), *files, "--output_dir", "-"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"# {files[0]}" and lines[2] == f"# {files[1]}" and len(lines) == 4
    main([str(experiment), *files, "--output_dir", "-", "--format", "json"])
    assert [json.loads(x)["file"] for x in capsys.readouterr().out.splitlines()] == files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav"]


def places(words, out, form, root):
    jobs = find_jobs([str(root / w) for w in words], out, form)
    return {
        str(job.media.relative_to(root)): job.transcript and str(job.transcript.relative_to(root))
        for job in jobs
    }


def test_where_transcripts_go(tmp_path):
    for name in ("a.mp4", "a.wav", "s/b.MOV", "s/t/b.mov", "s/c.pdf"):
        touch(tmp_path / name)
    out = tmp_path / "out"
    assert places(["a.mp4"], None, "srt", tmp_path) == {"a.mp4": None}
    assert places(["a.mp4", "s/t"], None, "srt", tmp_path) == {
        "a.mp4": "a.srt", "s/t/b.mov": "s/t/b.srt",
    }  # fmt: skip
    assert places(["a.mp4"], out, "txt", tmp_path) == {"a.mp4": "out/a.mp4.txt"}
    assert places(["s", "a.wav"], out, "json", tmp_path) == {
        "s/b.MOV": "out/b.MOV.json", "s/t/b.mov": "out/t/b.mov.json", "a.wav": "out/a.wav.json",
    }  # fmt: skip
    assert places(["s/t", "s/t/b.mov"], None, "txt", tmp_path) == {"s/t/b.mov": "s/t/b.mov.txt"}
    with pytest.raises(ValueError, match=r"a\.mp4 and .*a\.wav would share .*a\.srt"):
        places(["a.mp4", "a.wav"], None, "srt", tmp_path)
    with pytest.raises(ValueError, match="each file needs a transcript of its own"):
        places(["a.mp4", "a.wav"], transcribe.STANDARD_OUTPUT, "vtt", tmp_path)
    touch(tmp_path / "empty/notes.txt")
    with pytest.raises(MediaError, match=r"empty: has no \.mp4, .* file"):
        places(["empty"], None, "txt", tmp_path)


def test_progress_over_all_files(experiment, tmp_path, monkeypatch, capsys):
    bars = []
    bar = transcribe.tqdm

    class Bar(bar):
        def __init__(self, iterable=None, *args, disable=None, **options):
            bars.append((None if iterable is None else len(iterable), disable))
            super().__init__(iterable, *args, disable=disable, **options)

    monkeypatch.setattr(transcribe, "tqdm", Bar)
    for name in "abc":
        say(tmp_path / f"{name}.wav")
    main([str(experiment), str(tmp_path)])
    assert bars == [(3, None), *[(None, None)] * 3]
    shutil.rmtree(tmp_path)
    main([str(experiment), str(say(tmp_path / "a.wav"))])
    assert bars[4:] == [(1, True), (None, None)]
    assert "file/s" not in capsys.readouterr().err  # which is no terminal
