"""Scoring of a decode directory: word and character error rates in sclite's form."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.results.sclite import run_sclite
from espnet_smop.results.sclite_report import report
from espnet_smop.results.transcripts import (
    ScoringError,
    characters,
    check_same_ids,
    read_text,
    words,
)
from espnet_smop.results.trn import Utterance, format_line, read_trn

TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"wer": words, "cer": characters}


def score(
    *,
    ref: Path,
    hyp: Path,
    utt2spk: Path | None,
    out_dir: Path,
    metrics: Sequence[str],
    sclite: str | None,
    sclite_options: Sequence[str],
) -> dict[str, float]:
    """Write ``score_METRIC/{ref.trn,hyp.trn,result.txt}`` and return the error rates.

    Args:
        ref: Kaldi ``text`` of references.
        hyp: Kaldi ``text`` of hypotheses.
        utt2spk: speakers; None makes each utterance a speaker of its own.
        out_dir: the decode directory.
        metrics: ``wer``, ``cer`` or both.
        sclite: path of NIST's program; None writes the same report without it.
        sclite_options: further options for sclite.

    Returns:
        Error rates in percent by metric.

    Raises:
        ScoringError: the files do not hold the same utterances.
    """
    references, hypotheses = read_text(ref), read_text(hyp)
    check_same_ids(references, hypotheses, reference_name=str(ref), other_name=str(hyp))
    speakers = read_text(utt2spk) if utt2spk else {utt: utt for utt in references}
    missing = sorted(references.keys() - speakers.keys())
    if missing:
        raise ScoringError(f"{utt2spk} lacks {len(missing)} utterances of {ref}: {missing[0]}, …")

    rates = {}
    for metric in metrics:
        tokenize = TOKENIZERS[metric]
        directory = out_dir / f"score_{metric}"
        for name, texts in (("ref", references), ("hyp", hypotheses)):
            lines = [
                format_line(Utterance(speakers[utt], utt, tokenize(texts[utt])))
                for utt in sorted(references)
            ]
            with atomic_write(directory / f"{name}.trn") as file:
                file.write("\n".join(lines) + "\n")
        result = _result(directory, sclite, sclite_options)
        with atomic_write(directory / "result.txt") as file:
            file.write(result)
        row = next(line for line in result.splitlines() if "Sum/Avg" in line)
        rates[metric] = float(row.split()[-3])
    return rates


def _result(directory: Path, sclite: str | None, sclite_options: Sequence[str]) -> str:
    if sclite:
        try:
            return run_sclite(sclite, directory / "ref.trn", directory / "hyp.trn", sclite_options)
        except OSError as e:
            logging.warning("%s. The report is written without sclite", e)
    return report(read_trn(directory / "ref.trn"), read_trn(directory / "hyp.trn"), "hyp.trn")
