import numpy as np
import pytest

from espnet_smop.fileio.table import TableError
from espnet_smop.results.phones import CLASSES, Alignment, phone_class, read_phones


@pytest.mark.parametrize(
    ("phones", "name"),
    [
        ("iː ˈɪ ˌaɪ əl ɚ ɑ̃ AA1 AX UW0_E OY2", "vowel"),
        ("l ɹ j w ɾ R L_S EL Y DX", "approximant"),
        ("m n̩ ŋ M_B NG EN", "nasal"),
        ("f θ ð s ʒ h sʲ HH TH_I ZH ç", "fricative"),
        ("tʃ dʒ t͡ʃ ts JH CH_B", "affricate"),
        ("p t tʰ k kʷ ʔ ɡ g P T_I Q", "plosive"),
        ("sil SIL sp <eps>", "silence"),
        ("spn SPN", "noise"),
    ],
)
def test_classes_of_ipa_and_arpabet(phones, name):
    assert {phone: phone_class(phone) for phone in phones.split()} == dict.fromkeys(
        phones.split(), name
    )


@pytest.mark.parametrize("phone", ["@", "XX", "5", "ˈ", "_B"])
def test_what_is_no_phone_is_an_error(phone):
    with pytest.raises(ValueError, match="is neither an IPA nor an ARPABET phone"):
        phone_class(phone)


def names(indices):
    return [CLASSES[i] for i in indices]


def test_a_token_has_the_class_that_covers_most_of_it(tmp_path):
    path = tmp_path / "phones.ctm"
    path.write_text("b 1 0.0 0.1 m\na 1 0.05 0.13 s 0.9\na 1 0.18 0.10 AA1\na A 0.28 0.02 t\n")
    phones = read_phones(path)
    # Tokens of 80 ms: 0.03 s of [s]; 0.08; 0.02 of [s] and 0.06 of [aa]; 0.04 of [aa], 0.02 of [t]
    # and as much silence; silence.
    assert names(phones["a"].of_tokens(5, 0.08)) == [
        "silence", "fricative", "vowel", "vowel", "silence",
    ]  # fmt: skip
    assert names(phones["b"].of_tokens(2, 0.08)) == ["nasal", "silence"]
    assert names(Alignment().of_tokens(2, 0.08)) == ["silence"] * 2
    assert Alignment().of_tokens(0, 0.08).shape == (0,)


def test_two_phones_of_a_class_count_together():
    # 30 ms of [s], 20 ms of [a], 30 ms of silence, 20 ms of [f]
    parts = [(0.0, 0.03, "fricative"), (0.03, 0.05, "vowel"), (0.08, 0.10, "fricative")]
    starts, ends, kinds = zip(*parts, strict=True)
    alignment = Alignment(list(starts), list(ends), [CLASSES.index(kind) for kind in kinds])
    assert names(alignment.of_tokens(1, 0.1)) == ["fricative"]
    # Against a recount in steps of a millisecond
    rng = np.random.default_rng(0)
    edges = np.sort(rng.choice(1000, 40, replace=False)) / 1000
    kinds = rng.integers(0, len(CLASSES) - 1, 20)
    alignment = Alignment(list(edges[::2]), list(edges[1::2]), list(kinds))
    at = np.full(1040, CLASSES.index("silence"))
    for start, end, kind in zip(edges[::2], edges[1::2], kinds, strict=True):
        at[round(start * 1000) : round(end * 1000)] = kind
    counts = np.stack([np.bincount(part, minlength=len(CLASSES)) for part in at.reshape(-1, 80)])
    found = alignment.of_tokens(13, 0.08)
    assert [c[f] for c, f in zip(counts, found, strict=True)] == counts.max(1).tolist()


@pytest.mark.parametrize("line", ["a 1 0.1 s", "a 1 x 0.1 s", "a 1 0.0 0.1 @"])
def test_a_wrong_line_is_named(tmp_path, line):
    path = tmp_path / "phones.ctm"
    path.write_text(f"a 1 0 0.1 s\n{line}\n")
    with pytest.raises(TableError, match="phones.ctm:2: not a CTM line"):
        read_phones(path)
