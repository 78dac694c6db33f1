"""The tree that auto_avsr's preparation makes of LRS3 or another corpus.

    labels/<dataset>_<subset>_transcript_lengths_seg<N>s.csv   dataset,path,frames,tokens
    <dataset>/<dataset>_video_seg<N>s/<part>/<speaker>/<clip>.{mp4,wav}    mouth crops, 96×96
    <dataset>/<dataset>_text_seg<N>s/<part>/<speaker>/<clip>.txt

Clips are cut and cropped already. The tokens are auto_avsr's own, so texts are read from the text
files. Clips that lie directly below the root, without the dataset's directory, are found as well.

Trees that are passed on may have training labels of 16 s beside test labels of 24 s, a part of the
training set as a file of its own, and names with an addition (``…_seg16s_LLM_lowercase_25.csv``,
where long clips were taken out). For each dataset and subset the wanted length is taken, or the
only one there is; the plain name before one with an addition; and each clip once.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from espnet_smop.corpus.text import normalise
from espnet_smop.corpus.utterance import Corpus, CorpusError, Utterance, clip_ids

_LABELS = re.compile(r"(?P<name>.+)_seg(?P<seconds>\d+)s(?P<addition>.*)\.csv")


def is_here(root: Path) -> bool:
    """Whether a directory is such a tree."""
    return any(root.glob("labels/*.csv"))


def read(
    root: Path,
    *,
    parts: Sequence[str] | None,
    max_seconds: float,
    landmarks_dir: Path | None = None,
) -> Corpus:
    """Read such a tree.

    Args:
        root: its directory.
        parts: training clips of which parts are wanted; None takes all but ``test``.
        max_seconds: chooses between trees of several segment lengths.
        landmarks_dir: not needed, the clips are mouth crops.

    Raises:
        CorpusError: no labels of this segment length, several to choose from, or a line that is
            not of the form.
    """
    train, test, train_problems, test_problems = [], [], {}, {}
    seen: set[Path] = set()
    for path in _label_files(root, max_seconds):
        with open(path, encoding="utf-8-sig", newline="") as lines:
            for number, row in enumerate(_rows(path, lines), 1):
                if len(row) < 3 or len(Path(row[1]).parts) < 4 or not _is_inside(*row[:2]):
                    raise CorpusError(
                        f"{path}:{number}: expected dataset,path,frames,tokens; prepare the "
                        "corpus again"
                    )
                clip = _find(root, row[0], row[1])
                if clip in seen:
                    continue
                seen.add(clip)
                # <dataset>_video_seg16s/<part>/<speaker>/<clip>.mp4
                name = Path(*Path(row[1]).with_suffix("").parts[1:])
                is_test = name.parts[0] == "test"
                if not is_test and parts is not None and name.parts[0] not in parts:
                    continue
                problems = test_problems if is_test else train_problems
                utterance = _utterance(clip, name, problems)
                if utterance:
                    (test if is_test else train).append(utterance)
    return Corpus(
        "auto_avsr's prepared tree (labels/*.csv), mouth crops ready",
        train=train,
        test=test,
        train_problems=train_problems,
        test_problems=test_problems,
    )


def _label_files(root: Path, max_seconds: float) -> list[Path]:
    found: dict[str, dict[int, dict[str, Path]]] = {}
    for path in sorted(root.glob("labels/*.csv")):
        match = _LABELS.fullmatch(path.name)
        if match:
            lengths = found.setdefault(match["name"], {})
            lengths.setdefault(int(match["seconds"]), {})[match["addition"]] = path
    if not found:
        raise CorpusError(
            f"{root}/labels: no <dataset>_<subset>_transcript_lengths_seg<N>s.csv; prepare the "
            "corpus again"
        )
    chosen = []
    for name, lengths in found.items():
        seconds = next(iter(lengths)) if len(lengths) == 1 else int(max_seconds)
        if seconds not in lengths:
            raise CorpusError(
                f"{root}/labels: {name} has segments of {sorted(lengths)} s, none of "
                f"{max_seconds:g} s; choose one by --max_seconds"
            )
        additions = lengths[seconds]
        if "" not in additions and len(additions) > 1:
            listed = ", ".join(path.name for path in additions.values())
            raise CorpusError(f"{root}/labels: which of {listed}? Leave one there")
        chosen.append(additions.get("", next(iter(additions.values()))))
    return chosen


def _rows(path: Path, lines: Iterable[str]) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines)
    except (csv.Error, UnicodeDecodeError) as e:
        raise CorpusError(f"{path}: is no CSV file ({e}); prepare the corpus again") from None


def _is_inside(dataset: str, relative: str) -> bool:
    path = Path(dataset, relative)
    return not path.is_absolute() and ".." not in path.parts


def _find(root: Path, dataset: str, relative: str) -> Path:
    inside = root / dataset / relative
    return inside if inside.exists() or not (root / relative).exists() else root / relative


def _utterance(clip: Path, name: Path, problems: dict[str, str]) -> Utterance | None:
    # …/lrs3_video_seg16s/<name>.mp4 ↔ …/lrs3_text_seg16s/<name>.txt
    videos = clip.parents[len(name.parts) - 1]
    texts = videos.with_name(videos.name.replace("_video_seg", "_text_seg"))
    text_file = texts / name.with_suffix(".txt")
    sound = clip.with_suffix(".wav")
    if not clip.is_file():
        problems[str(clip)] = "no such clip, the labels name it"
        return None
    if not text_file.is_file():
        problems[str(clip)] = f"its text file {text_file} is missing"
        return None
    try:
        text = normalise(text_file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        problems[str(clip)] = f"its text file {text_file} is not UTF-8"
        return None
    if not text:
        problems[str(clip)] = "empty transcript"
        return None
    recording, speaker = clip_ids(name)
    return Utterance(
        id=recording,
        speaker=speaker,
        recording=recording,
        audio=str(sound if sound.is_file() else clip),
        video=str(clip),
        text=text,
        name=name.as_posix(),
        kind="mouth",
    )
