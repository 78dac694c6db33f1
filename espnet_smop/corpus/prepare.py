"""Write a set of utterances as a Kaldi data directory, and report what was left out."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet_smop.corpus import datadir
from espnet_smop.corpus.utterance import CorpusError, Problem, Utterance
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.modality import AUDIO, FRAME_RATE, VIDEO


def write_set(
    directory: Path, utterances: Sequence[Utterance], problems: Sequence[Problem]
) -> None:
    """Write a set's tables, and ``prepare.txt`` with the clips left out and why.

    Raises:
        CorpusError: there are no utterances.
    """
    if not utterances:
        reasons = "".join(f" ({problem})" for problem in problems[:1])
        raise CorpusError(f"{directory}: no utterance{reasons}; check the corpus directory")
    tables: dict[str, dict[str, object]] = {
        "text": {u.id: u.text for u in utterances},
        "utt2spk": {u.id: u.speaker for u in utterances},
    }
    for modality, files in (
        (AUDIO, {u.recording: u.audio for u in utterances if u.audio}),
        (VIDEO, {u.recording: u.video for u in utterances if u.video}),
    ):
        if files:
            tables[modality.scp] = files
    landmarks = {u.recording: u.landmarks for u in utterances if u.landmarks}
    if landmarks:
        tables["landmarks.scp"] = landmarks
    if any(u.kind != "face" for u in utterances):
        tables["reco2kind"] = {u.recording: u.kind for u in utterances}
    if any(u.id != u.recording for u in utterances):
        tables["segments"] = {u.id: _segment(u) for u in utterances}
    datadir.write_data_dir(directory, tables)
    with atomic_write(directory / "prepare.txt") as report:
        report.write(f"{summary(utterances, problems)}\n")
        report.writelines(f"left out: {problem}\n" for problem in problems)


def check_ids(utterances: Iterable[Utterance]) -> None:
    """Raise CorpusError if two utterances, in whichever sets, have the same id."""
    by_id: dict[str, Utterance] = {}
    for utterance in utterances:
        other = by_id.setdefault(utterance.id, utterance)
        if other is not utterance:
            raise CorpusError(
                f"{utterance.video or utterance.audio} and {other.video or other.audio} both give "
                f"the id {utterance.id}; leave one out or rename it"
            )


def _segment(utterance: Utterance) -> str:
    end = "-1" if utterance.end is None else f"{utterance.end / FRAME_RATE:.2f}"
    return f"{utterance.recording} {utterance.start / FRAME_RATE:.2f} {end}"


def summary(utterances: Sequence[Utterance], problems: Sequence[Problem]) -> str:
    """Return one line with the numbers of utterances, clips, speakers and clips left out."""
    clips = len({u.recording for u in utterances})
    speakers = len({u.speaker for u in utterances})
    return (
        f"{len(utterances)} utterances from {clips} clips of {speakers} speakers, "
        f"{len(problems)} clips left out"
    )
