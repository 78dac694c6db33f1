"""sclite's report, written without sclite: two tables by speaker, and every alignment.

The layout is that of ``sclite -i rm -o all``, for programs that read ``result.txt`` (such as
ESPnet's ``show_asr_result.sh``) and people used to it: one ``SPKR`` header and exactly one
``Sum/Avg`` row.
"""

import math
import statistics
from collections.abc import Callable, Sequence

from espnet_smop.results.alignment import Counts, align, count, fold_case, operation
from espnet_smop.results.trn import Utterance

_PAGE = 80
_FOOTNOTE = """
* No Reference words for this/these speaker(s).  Word counts supplied
  rather than percents.
# No Reference words for this/these speaker(s).  NCE not computable.
+ Speaker(s) with no reference data is ignored"""


class _Row:
    """The figures of one speaker, or of all."""

    def __init__(self, counts: Sequence[Counts]):
        self.sentences = len(counts)
        self.tokens = sum(c.reference for c in counts)
        self.numbers = [
            sum(c.correct for c in counts),
            sum(c.substitutions for c in counts),
            sum(c.deletions for c in counts),
            sum(c.insertions for c in counts),
            sum(c.errors for c in counts),
            sum(c.errors > 0 for c in counts),
        ]

    @property
    def percentages(self) -> list[float]:
        """Percent of tokens, and of sentences; only for rows with tokens."""
        # In this order: the last bit decides how a figure such as 51.25 is rounded.
        return [x / self.tokens * 100.0 for x in self.numbers[:-1]] + [self.wrong_sentences]

    @property
    def wrong_sentences(self) -> float:
        return self.numbers[-1] / self.sentences * 100.0


def report(references: Sequence[Utterance], hypotheses: Sequence[Utterance], title: str) -> str:
    """Return sclite's report on hypotheses given in the references' order.

    Speaker and utterance names are printed in lower case, as by sclite.
    """
    alignments = [align(r.tokens, h.tokens) for r, h in zip(references, hypotheses, strict=True)]
    counts = [count(pairs) for pairs in alignments]
    by_speaker: dict[str, list[int]] = {}
    for index, reference in enumerate(references):
        by_speaker.setdefault(fold_case(reference.speaker), []).append(index)
    rows = {speaker: _Row([counts[i] for i in at]) for speaker, at in by_speaker.items()}

    lines = ["", "", *_percentages(title, rows, _Row(counts))]
    lines += ["", "", *_numbers(title, rows, _Row(counts)), "", ""]
    lines += ["\t\tDUMP OF SYSTEM ALIGNMENT STRUCTURE", "", f"System name:   {title}", ""]
    lines += ["Speakers: "] + [f"{k:5d}:  {speaker}" for k, speaker in enumerate(by_speaker)] + [""]
    for k, (speaker, at) in enumerate(by_speaker.items()):
        lines.append(f"Speaker sentences {k:3d}:  {speaker}   #utts: {len(at)}")
        for i in at:
            lines.append(f"id: ({speaker}-{fold_case(references[i].name)})")
            lines += [*_alignment(alignments[i], counts[i]), ""]
    return "\n".join(lines) + "\n"


def _percentages(title: str, rows: dict[str, _Row], total: _Row) -> list[str]:
    width = max(8, *(len(speaker) + 2 for speaker in rows))
    scored = [row for row in rows.values() if row.tokens]

    def one(name: str, row: _Row) -> str:
        if row.tokens:
            cells = [f"{_round(x):5.1f} " for x in row.percentages]
        elif row is total:
            cells = [f"{_round(x):5.1f} " for x in [0.0] * 5 + [row.wrong_sentences]]
        else:
            cells = [f"{x:5d}*" for x in row.numbers[:-1]] + [
                f"{_round(row.wrong_sentences):5.1f} "
            ]
        return _line(f" {name:<{width - 1}}", f"{row.sentences:5d}{row.tokens:7d}", cells)

    def over_speakers(name: str, reduce: Callable[[list[float]], float]) -> str:
        mark = " " if len(scored) == len(rows) else "+"
        figures = [reduce(list(x)) for x in zip(*(row.percentages for row in scored), strict=True)]
        cells = [f"{_round(x):5.1f}{mark}" for x in figures[:-1] or [0.0] * 5]
        cells += [f"{_round(reduce([row.wrong_sentences for row in rows.values()])):5.1f} "]
        return _line(f"{name:^{width}}", _sizes(rows, reduce), cells)

    lines = _box(title, width, rows, one, ("Sum/Avg", total), over_speakers)
    return lines if len(scored) == len(rows) else [*lines, *_FOOTNOTE.splitlines()]


def _numbers(title: str, rows: dict[str, _Row], total: _Row) -> list[str]:
    width = max(6, *(len(speaker) + 2 for speaker in rows))

    def one(name: str, row: _Row) -> str:
        cells = [f"{x:5d} " for x in row.numbers]
        return _line(f" {name:<{width - 1}}", f"{row.sentences:5d}{row.tokens:7d}", cells)

    def over_speakers(name: str, reduce: Callable[[list[float]], float]) -> str:
        figures = zip(*(row.numbers for row in rows.values()), strict=True)
        cells = [f"{_round(reduce(list(x))):5.1f} " for x in figures]
        return _line(f"{name:^{width}}", _sizes(rows, reduce), cells)

    return _box(title, width, rows, one, ("Sum", total), over_speakers)


def _sizes(rows: dict[str, _Row], reduce: Callable[[list[float]], float]) -> str:
    sentences = reduce([row.sentences for row in rows.values()])
    tokens = reduce([row.tokens for row in rows.values()])
    return f"{_round(sentences):5.1f}{_round(tokens):7.1f}"


def _round(x: float) -> float:
    """Round halves up, as sclite does (format() rounds them to even)."""
    return math.floor(10 * x + 0.5) / 10


def _line(name: str, sizes: str, cells: list[str]) -> str:
    return f"|{name}|{sizes} |{' '.join(cells)}|"


def _box(
    title: str,
    width: int,
    rows: dict[str, _Row],
    one: Callable[[str, _Row], str],
    total: tuple[str, _Row],
    over_speakers: Callable[[str, Callable[[list[float]], float]], str],
) -> list[str]:
    heading = "Corr    Sub    Del    Ins    Err  S.Err"
    thin = f"|{'-' * width}+{'-' * 13}+{'-' * 41}|"
    inner = len(thin) - 2
    thick = f"|{'=' * inner}|"
    box = [f",{'-' * inner}.", f"|{title[:inner]:^{inner}}|", f"|{'-' * inner}|"]
    box.append(f"| {'SPKR':<{width - 1}}| # Snt # Wrd | {heading} |")
    for speaker, row in rows.items():
        box += [thin, one(speaker, row)]
    box += [thick, one(*total), thick]
    box.append(over_speakers("Mean", statistics.fmean))
    box.append(over_speakers("S.D.", lambda x: statistics.stdev(x) if len(x) > 1 else 0.0))
    box.append(over_speakers("Median", statistics.median))
    box.append(f"`{'-' * inner}'")
    margin = " " * ((_PAGE - inner - 2) // 2)
    return [
        "",
        f"{'SYSTEM SUMMARY PERCENTAGES by SPEAKER':^{_PAGE}}",
        "",
        *(margin + x for x in box),
    ]


def _alignment(pairs: Sequence[tuple[str, str]], counts: Counts) -> list[str]:
    scores = "Scores: (#C #S #D #I) {} {} {} {}".format(*counts)
    if not pairs:
        return [scores]
    lines = ["REF:  ", "HYP:  ", "Eval: "]
    for pair in pairs:
        kind = operation(pair)
        if kind == "C":
            cells = [*map(fold_case, pair), ""]
        else:
            gap = "*" * max(map(len, pair))
            cells = [*(token.upper() or gap for token in pair), kind]
        width = max(map(len, pair))
        for k, cell in enumerate(cells):
            lines[k] += f"{cell:<{width}} "
    return [scores, *lines]
