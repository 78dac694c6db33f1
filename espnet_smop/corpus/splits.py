"""Splitting test and validation sets off a corpus's training utterances."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet_smop.corpus.utterance import Corpus, CorpusError, Problem, Utterance


def split(
    corpus: Corpus,
    root: str,
    *,
    valid_share: float,
    valid_list: Path | None = None,
    test_share: float = 0.0,
    test_list: Path | None = None,
    allow_broken: bool = False,
) -> Corpus:
    """Split off the sets that a corpus does not define itself.

    A set consists of the clips in its list; without a list it is the corpus's own set; without
    that, whole speakers with ``share`` of the utterances are split off the training set. ``root``
    names the corpus in messages.

    Raises:
        CorpusError: there is no test set, or it would lose utterances.
    """
    train, valid, test = list(corpus.train), corpus.valid, list(corpus.test)
    if test_list:
        names = _names(test_list, "--test_list")
        train, test = split_by_list(train, names, "--test_list")
        if not allow_broken:
            _check_all_found(test_list, names, test, corpus.train_problems)
    elif not (test or corpus.test_problems):
        if not test_share:
            raise CorpusError(
                f"{root}: holds no test clips; prepare the test part as well, or split a "
                "test set off by --test_share or --test_list"
            )
        train, test = split_by_speaker(train, test_share, "--test_list")
    if corpus.test_problems and not allow_broken:
        raise CorpusError(
            f"the test set would lose {len(corpus.test_problems)} clips: "
            f"{'; '.join(map(str, corpus.test_problems))}. Repair them, or accept their loss with "
            "--allow_broken"
        )
    if valid_list:
        names = _names(valid_list, "--valid_list")
        train, valid = split_by_list([*train, *(valid or ())], names, "--valid_list")
    elif not valid:
        train, valid = split_by_speaker(train, valid_share, "--valid_list")
    return dataclasses.replace(corpus, train=train, valid=valid, test=test)


def split_by_speaker(
    utterances: Iterable[Utterance], share: float, option: str
) -> tuple[list[Utterance], list[Utterance]]:
    """Split off whole speakers, independently of order and machine.

    Speakers are taken in the order of a hash of their name until they have ``share`` of the
    utterances. Pretrain clips, whose transcripts are less exact, neither count nor are split off
    unless there are no others; those of the speakers split off are left out altogether.

    Args:
        utterances: the utterances to split.
        share: wanted share of the utterances.
        option: the option for giving a list instead, for the message.

    Returns:
        The remaining utterances, and those split off.

    Raises:
        CorpusError: fewer than two speakers.
    """
    utterances = list(utterances)
    candidates = [u for u in utterances if not u.is_pretrain] or utterances
    count: dict[str, int] = {}
    for utterance in candidates:
        count[utterance.speaker] = count.get(utterance.speaker, 0) + 1
    num_speakers = len({u.speaker for u in utterances})
    if num_speakers < 2:
        raise CorpusError(
            "fewer than two training speakers: no set of other speakers can be split off; give one "
            f"with {option}"
        )
    chosen: set[str] = set()
    wanted = share * len(candidates)
    held = 0
    for speaker in sorted(count, key=lambda s: hashlib.sha256(s.encode()).digest()):
        if held >= wanted or len(chosen) == num_speakers - 1:
            break
        chosen.add(speaker)
        held += count[speaker]
    taken = [u for u in candidates if u.speaker in chosen]
    return [u for u in utterances if u.speaker not in chosen], taken


def split_by_list(
    utterances: Iterable[Utterance], names: Iterable[str], option: str
) -> tuple[list[Utterance], list[Utterance]]:
    """Split off the utterances that a list names by `Utterance.name`, id or speaker.

    Returns:
        The remaining utterances, and those split off.

    Raises:
        CorpusError: the list names none of them.
    """
    names = set(names)
    rest, taken = [], []
    for utterance in utterances:
        listed = not names.isdisjoint((utterance.id, utterance.name, utterance.speaker))
        (taken if listed else rest).append(utterance)
    if not taken:
        example = f", such as {rest[0].name}" if rest else ""
        raise CorpusError(
            f"{option} names none of the training clips; expected one clip, id or speaker a line"
            f"{example}"
        )
    return rest, taken


def _check_all_found(
    path: Path, names: Iterable[str], found: Iterable[Utterance], problems: Sequence[Problem]
) -> None:
    """Raise CorpusError if the test set would lose clips that its list names."""
    known = {key for u in found for key in (u.id, u.name, u.speaker)}
    lost = [name for name in names if name not in known]
    if lost:
        known_problems = {name: p for name in lost for p in problems if name in p.path}
        reasons = [str(known_problems.get(name, f"{name}: no such clip")) for name in lost]
        raise CorpusError(
            f"{path}: {len(lost)} of the names match no usable clip: {'; '.join(reasons)}. "
            "Repair them, or accept their loss with --allow_broken"
        )


def _names(path: Path, option: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return [line.strip() for line in lines if line.strip()]
    except OSError as e:
        raise CorpusError(f"{path}: {e.strerror}; check {option}") from None
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: is not UTF-8; check {option}") from None
