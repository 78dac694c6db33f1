"""Phones with times, from a CTM file, and their classes."""

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from espnet_smop.fileio.table import TableError, read_lines

CLASSES = (
    "vowel", "approximant", "nasal", "fricative", "affricate", "plosive", "noise", "silence",
)  # fmt: skip
"""Phone classes, most sonorous first; approximants include taps and trills."""
_SILENCE = CLASSES.index("silence")
# Labels of alignments that are not phones; aligners write spn for an unknown word.
_OTHERS = {
    **dict.fromkeys(("sil", "sp", "pau", "<eps>"), "silence"),
    **dict.fromkeys(("spn", "nsn"), "noise"),
}

# First symbols of IPA. An affricate is a plosive followed by a fricative.
_IPA = {
    "vowel": "iyɨʉɯuɪʏʊeøɘɵɤoəɛœɜɞʌɔæɐaɶɑɒɚɝᵻᵿ",
    "approximant": "lɭʎʟɫɹɻrʀɾɽⱱʙjwɥɰʋʍɺ",
    "nasal": "mɱnɳɲŋɴ",
    "fricative": "ɸβfvθðszʃʒʂʐɕʑçʝxɣχʁħʕhɦɬɮɧ",
    "plosive": "pbtdʈɖcɟkgɡqɢʔ",
}  # fmt: skip
# ARPABET, where vowels begin with A, E, I, O or U.
_ARPABET = {
    "approximant": "L EL R W Y WH DX NX",
    "nasal": "M EM N EN NG ENG",
    "fricative": "F V TH DH S Z SH ZH HH HV",
    "affricate": "CH JH",
    "plosive": "P B T D K G Q",
}
_CLASS_OF = {
    **{symbol: name for name, symbols in _IPA.items() for symbol in symbols},
    **{phone: name for name, phones in _ARPABET.items() for phone in phones.split()},
}


def phone_class(phone: str) -> str:
    """Return the class of a phone in IPA or in ARPABET.

    Stress, length and other modifiers are ignored, as are Kaldi's markers of word position
    (``AH1_B``); of a diphthong, the first vowel counts.

    Raises:
        ValueError: it is neither.
    """
    if phone.lower() in _OTHERS:
        return _OTHERS[phone.lower()]
    plain = phone.rpartition("_")[0] if phone[-2:] in ("_B", "_I", "_E", "_S") else phone
    if plain.isascii() and plain.isupper():
        plain = plain.rstrip("0123456789")
        found = _CLASS_OF.get(plain, "vowel" if plain[:1] in "AEIOU" else None)
    else:
        # ç is a symbol of its own, ã an a with a tilde.
        characters = [
            c if c in _CLASS_OF else unicodedata.normalize("NFD", c)[0]
            for c in unicodedata.normalize("NFC", plain)
        ]
        symbols = [c for c in characters if c in _CLASS_OF]
        classes = [_CLASS_OF[symbol] for symbol in symbols[:2]]
        found = "affricate" if classes == ["plosive", "fricative"] else next(iter(classes), None)
    if found is None:
        raise ValueError(f"{phone!r} is neither an IPA nor an ARPABET phone")
    return found


@dataclass
class Alignment:
    """An utterance's phones; gaps between them are silence.

    Attributes:
        starts: seconds.
        ends: seconds.
        classes: index of each phone's class in `CLASSES`.
    """

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def of_tokens(self, count: int, seconds: float) -> np.ndarray:
        """Return the index of the class that covers most of each token, ``(count,)``.

        Args:
            count: number of tokens, one after the other from the beginning.
            seconds: duration of each.
        """
        begin = np.arange(count)[:, None] * seconds
        # (count, phones)
        shared = np.minimum(self.ends, begin + seconds) - np.maximum(self.starts, begin)
        # (count, classes)
        covered = shared.clip(min=0) @ np.eye(len(CLASSES))[self.classes]
        covered[:, _SILENCE] += seconds - covered.sum(1)
        return covered.argmax(1)


def read_phones(path: Path) -> dict[str, Alignment]:
    """Read a CTM file: ``UTTERANCE CHANNEL START DURATION PHONE`` in each line, in seconds.

    Returns:
        utterance → its phones.

    Raises:
        TableError: the file cannot be read, or a line is malformed.
    """
    utterances: dict[str, Alignment] = {}
    for number, uid, rest in read_lines(path):
        try:
            _, start, duration, phone = rest.split()[:4]
            begin, length = float(start), float(duration)
            kind = CLASSES.index(phone_class(phone))
        except ValueError as e:
            raise TableError(
                f"{path}:{number}: not a CTM line `UTTERANCE 1 START DURATION PHONE` ({e})"
            ) from None
        alignment = utterances.setdefault(uid, Alignment())
        alignment.starts.append(begin)
        alignment.ends.append(begin + length)
        alignment.classes.append(kind)
    return utterances
