"""Splitting a validation set off the training clips."""

import hashlib
from collections.abc import Iterable

from espnet_smop.corpus.utterance import CorpusError, Utterance


def split_by_speaker(
    utterances: Iterable[Utterance], share: float
) -> tuple[list[Utterance], list[Utterance]]:
    """Split off a validation set of whole speakers, the same whatever the order or machine.

    Speakers are taken in the order of a hash of their name until they have ``share`` of the
    utterances. Pretrain's clips neither count nor validate unless there are no others (their
    transcripts are the less exact ones); those of validation speakers are left out altogether.

    Returns:
        Training and validation utterances.

    Raises:
        CorpusError: fewer than two speakers.
    """
    utterances = list(utterances)
    candidates = [u for u in utterances if not u.name.startswith("pretrain/")] or utterances
    count: dict[str, int] = {}
    for utterance in candidates:
        count[utterance.speaker] = count.get(utterance.speaker, 0) + 1
    num_speakers = len({u.speaker for u in utterances})
    if num_speakers < 2:
        raise CorpusError(
            "training clips of fewer than two speakers: no validation set can be cut; "
            "give one by --valid_list"
        )
    chosen: set[str] = set()
    wanted = share * len(candidates)
    held = 0
    for speaker in sorted(count, key=lambda s: hashlib.sha256(s.encode()).digest()):
        if held >= wanted or len(chosen) == num_speakers - 1:
            break
        chosen.add(speaker)
        held += count[speaker]
    valid = [u for u in candidates if u.speaker in chosen]
    return [u for u in utterances if u.speaker not in chosen], valid


def split_by_list(
    utterances: Iterable[Utterance], names: Iterable[str]
) -> tuple[list[Utterance], list[Utterance]]:
    """Split off the utterances that a list names: ``trainval/<speaker>/<clip>``, id or speaker.

    Raises:
        CorpusError: the list names none of them.
    """
    names = set(names)
    train, valid = [], []
    for utterance in utterances:
        listed = not names.isdisjoint((utterance.id, utterance.name, utterance.speaker))
        (valid if listed else train).append(utterance)
    if not valid:
        raise CorpusError(
            "--valid_list names none of the training clips; expected lines like "
            "trainval/<speaker>/<clip>, ids or speakers"
        )
    return train, valid
