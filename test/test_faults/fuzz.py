#!/usr/bin/env python3
"""Feed damaged files to every reader of this project; only documented errors may come out.

Each reader gets whole files changed at random: bits turned, pieces cut, doubled, exchanged, numbers
made extreme. An error of one line and of the documented kind is right, so is a result; anything
else is printed with the file kept, and the status is 1.

Example::

    python test/test_faults/fuzz.py --minutes 10            # of processor time for each reader
    python test/test_faults/fuzz.py --minutes 1 --readers landmarks video
"""

import argparse
import io
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.archive import PackageError, extract
from espnet_smop.checkpoint.ctranslate2 import read_model
from espnet_smop.checkpoint.fairseq import read_checkpoint
from espnet_smop.checkpoint.llama_smop.names import CheckpointError
from espnet_smop.checkpoint.llama_smop.weights import read_state
from espnet_smop.config import ConfigError, load_config
from espnet_smop.corpus.landmarks import LandmarkError, read_landmarks
from espnet_smop.corpus.media import MediaError, read_audio, read_pictures
from espnet_smop.corpus.readers.auto_avsr import AutoAVSRReader
from espnet_smop.corpus.readers.av_hubert import AVHuBERTReader
from espnet_smop.corpus.readers.lrs2 import LRS2Reader
from espnet_smop.corpus.readers.lrs3 import TextFileError, read_text_file
from espnet_smop.corpus.utterance import CorpusError
from espnet_smop.fileio.table import TableError, read_table
from espnet_smop.fileio.video import VideoFileError, VideoScpReader, read_video, write_video
from espnet_smop.results.transcripts import ScoringError, read_text
from espnet_smop.results.trn import read_trn

sys.path.insert(0, str(Path(__file__).parent))

from bad_media import encode, pictures, tone

MEMORY = 12 * 2**30
"""Address space that a reader may have: what asks for more fails at once, as it should."""


class Reader(NamedTuple):
    """A reader, what it may raise, and files that it takes (name → content)."""

    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    files: dict[str, bytes]


def _saved(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _media(name: str, **options) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        encode(path, pictures(6, 48, 48), tone(0.24), **options)
        return path.read_bytes()


def _stored_video() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.mkv")
        write_video(path, pictures(6, 96, 96))
        return path.read_bytes()


def _zip() -> bytes:
    def write(file):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.yaml", "decoder_conf: {model: x}\n" * 20)
            archive.writestr("tokenizer/tokenizer.json", "{}")
            archive.writestr("model.safetensors", bytes(200))

    return _saved(write)


def _ctranslate2() -> bytes:
    def text(value):
        return (len(value) + 1).to_bytes(2, "little") + value.encode() + b"\0"

    parts = [(6).to_bytes(4, "little"), text("WhisperSpec"), (3).to_bytes(4, "little")]
    parts.append((2).to_bytes(4, "little"))
    for name in ("encoder/a", "encoder/b"):
        parts += [
            text(name),
            b"\2",
            (2).to_bytes(4, "little") * 2,
            b"\0",
            (16).to_bytes(4, "little"),
        ]
        parts.append(bytes(16))
    return b"".join(parts)


def _in_directory(name: str, read: Callable[[Path], object], **others: str):
    """Return a reader of a directory in which the file has this name."""

    def run(path: Path) -> object:
        with tempfile.TemporaryDirectory() as directory:
            for other, content in {name: path.read_bytes(), **others}.items():
                target = Path(directory, other)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content if isinstance(content, bytes) else content.encode())
            return read(Path(directory))

    return run


def _extract(path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "inner")
        target.mkdir()
        try:
            extract(path, target)
        finally:
            assert {p.name for p in Path(directory).iterdir()} == {"inner"}


def _some(iterable) -> int:
    """Take what is yielded, up to what a file of this size can honestly hold."""
    count = 0
    for item in iterable:
        item.grey()
        count += 1
        assert count < 20000, "a flood of pictures"
    return count


def readers() -> dict[str, Reader]:
    """Return all readers with files to start from."""
    points = np.random.default_rng(0).uniform(0, 200, (5, 68, 2)).astype(np.float32)
    frames = [points[0], None, points[1].astype(np.float64)]
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    fairseq = {"model": state, "cfg": {"model": {"encoder_layers": 2}}, "args": None}
    table = b"id_1 one two\nid_2 three\tfour\nid_3\n"
    words = b"Text:  HELLO WORLD\nConf:  3\n\nWORD START END ASDSCORE\nHELLO 0.1 0.5 9.1\n"
    labels = "labels/lrs3_train_transcript_lengths_seg16s.csv"
    config = (
        b"base: []\nprojector: smop\nprojector_conf: {routing: dedr, top_k: 2}\n"
        b"a: [1, 1.0e-3, null, 2001-01-01, 0x1F, !!int '3', &x y, *x]\n"
    )
    return {
        "text": Reader(read_text_file, (TextFileError,), {"a.txt": words}),
        "landmarks": Reader(
            read_landmarks,
            (LandmarkError,),
            {
                "a.npy": _saved(lambda f: np.save(f, points)),
                "objects.npy": _saved(
                    lambda f: np.save(f, np.array([*frames], object), allow_pickle=True)
                ),
                "a.npz": _saved(lambda f: np.savez_compressed(f, data=points)),
                "a.pkl": pickle.dumps(frames, protocol=2),
                "b.pkl": pickle.dumps(list(points), protocol=4),
            },
        ),
        "tables": Reader(read_table, (TableError,), {"text": table}),
        "hypotheses": Reader(read_text, (ScoringError,), {"text": table}),
        "trn": Reader(read_trn, (ScoringError,), {"a.trn": b"a b (s1-u1)\nc (s2-u2)\n (s2-u3)\n"}),
        "scp": Reader(VideoScpReader, (VideoFileError,), {"video.scp": b"a x.mkv\nb y z.mkv\n"}),
        "config": Reader(load_config, (ConfigError,), {"a.yaml": config}),
        "fairseq": Reader(
            read_checkpoint,
            (BaseModelError,),
            {
                "a.pt": _saved(lambda f: torch.save(fairseq, f)),
                "old.pt": _saved(
                    lambda f: torch.save(fairseq, f, _use_new_zipfile_serialization=False)
                ),
            },
        ),
        "state": Reader(
            read_state,
            (CheckpointError,),
            {
                "a.pth": _saved(lambda f: torch.save(state, f)),
                "old.pth": _saved(
                    lambda f: torch.save(state, f, _use_new_zipfile_serialization=False)
                ),
                "a.safetensors": _safetensors(state),
            },
        ),
        "ctranslate2": Reader(read_model, (BaseModelError,), {"model.bin": _ctranslate2()}),
        "package": Reader(_extract, (PackageError,), {"packed.zip": _zip()}),
        "auto_avsr": Reader(
            _in_directory(labels, AutoAVSRReader().read),
            (CorpusError,),
            {"a.csv": b'lrs3,lrs3_video_seg16s/trainval/s/1.mp4,25,"1 2 3"\n' * 2},
        ),
        "av_hubert": Reader(
            _in_directory("train.tsv", AVHuBERTReader().read, **{"train.wrd": "a\nb\n"}),
            (CorpusError,),
            {"train.tsv": b"/\ntrainval/s/1\tv.mp4\ta.wav\t25\t16000\n" + b"x\ty\tz\t1\t2\n"},
        ),
        "lrs2": Reader(
            _in_directory(
                "train.txt",
                LRS2Reader(train_parts=["train"]).read,
                **{"val.txt": "3/00001\n", "test.txt": "4/00001 NF\n", "main/list": ""},
            ),
            (CorpusError,),
            {"train.txt": b"1/00001\n1/00002\n2/00001 NF\n"},
        ),
        "sound": Reader(
            read_audio,
            (MediaError,),
            {
                "a.mp4": _media("a.mp4"),
                "a.mkv": _media("a.mkv", form="matroska"),
                "a.ts": _media("a.ts", form="mpegts"),
            },
        ),
        "pictures": Reader(
            lambda path: _some(read_pictures(path)),
            (MediaError,),
            {
                "a.mp4": _media("a.mp4"),
                "a.avi": _media("a.avi", form="avi", codec="mpeg4", sound="mp2"),
                "a.mkv": _media("a.mkv", form="matroska", rate=30),
            },
        ),
        "video": Reader(read_video, (VideoFileError,), {"a.mkv": _stored_video()}),
    }


def _safetensors(state) -> bytes:
    from safetensors.torch import save

    return save(state)


_EXTREME = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x80", b"\n", b" ", b"\t", b"..")


def damage(data: bytes, chance: random.Random) -> bytes:
    """Return a file's content changed at a few random places."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        size = len(changed)
        at = chance.randrange(size + 1)
        length = min(chance.choice((1, 1, 2, 4, 8, 64, 1000)), size - at)
        kind = chance.randrange(7)
        if kind == 0 and at < size:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + length] = chance.randbytes(length)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            what = chance.choice(_EXTREME)
            changed[at : at + len(what)] = what
        elif kind == 5:
            other = chance.randrange(size + 1)
            changed[at : at + length] = changed[other : other + length]
        elif chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def fuzz(name: str, reader: Reader, seconds: float, seed: int, keep: Path) -> tuple[int, int, set]:
    """Return how many files were read, how many were refused, and what went wrong."""
    chance = random.Random(f"{name} {seed}")
    done = refused = 0
    wrong = set()
    end = time.process_time() + seconds
    with tempfile.TemporaryDirectory() as directory:
        while time.process_time() < end:
            file, content = chance.choice(list(reader.files.items()))
            path = Path(directory, file)
            path.write_bytes(damage(content, chance))
            done += 1
            try:
                reader.read(path)
            except reader.errors as e:
                refused += 1
                if "\n" in str(e) and name != "config":  # YAML's own message shows the place
                    wrong.add(f"{type(e).__name__} of several lines")
            except Exception as e:
                problem = f"{type(e).__name__}: {str(e)[:100]}"
                if problem not in wrong:
                    wrong.add(problem)
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}.{len(wrong)}.{file}").write_bytes(path.read_bytes())
    return done, refused, wrong


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = readers()
    parser.add_argument("--minutes", type=float, default=10, help="For each reader (default 10)")
    parser.add_argument("--readers", nargs="+", choices=known, default=list(known))
    parser.add_argument("--seed", type=int, default=0, help="Of the damage (default 0)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_findings"), help="Files found")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    av.logging.set_level(None)
    warnings.simplefilter("ignore")  # PyTorch has one for every damaged header
    failed = 0
    for name in args.readers:
        result = fuzz(name, known[name], 60 * args.minutes, args.seed, args.keep)
        done, refused, wrong = result
        print(f"{name}: {done} files, {refused} refused, {len(wrong)} wrong", flush=True)
        for problem in sorted(wrong):
            failed += 1
            print(f"  {problem}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
