#!/usr/bin/env python3
"""Score hypotheses: word and character error rates in sclite's form.

Writes ``score_wer/{ref.trn,hyp.trn,result.txt}`` and ``score_cer/…`` below ``--out_dir``.
``result.txt`` comes from sclite where it is installed, otherwise from a writer of the same table.

Example::

    python -m espnet_smop.bin.score --ref dump/raw/test/text --hyp exp/avsr/decode/test/text \
        --utt2spk dump/raw/test/utt2spk --out_dir exp/avsr/decode/test
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.scoring.sclite import find_sclite, run_sclite
from espnet_smop.scoring.sclite_table import report
from espnet_smop.scoring.transcripts import (
    ScoringError,
    characters,
    check_same_ids,
    read_text,
    words,
)
from espnet_smop.scoring.trn import Utterance, format_line, read_trn

_TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"wer": words, "cer": characters}


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
    """Write the scores and return the error rates in per cent by metric.

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
        tokenize = _TOKENIZERS[metric]
        directory = out_dir / f"score_{metric}"
        for name, texts in (("ref", references), ("hyp", hypotheses)):
            lines = [
                format_line(Utterance(speakers[utt], utt, tokenize(texts[utt])))
                for utt in sorted(references)
            ]
            with atomic_write(directory / f"{name}.trn") as file:
                file.write("\n".join(lines) + "\n")
        table = _table(directory, sclite, sclite_options)
        with atomic_write(directory / "result.txt") as file:
            file.write(table)
        row = next(line for line in table.splitlines() if "Sum/Avg" in line)
        rates[metric] = float(row.split()[-3])
    return rates


def _table(directory: Path, sclite: str | None, sclite_options: Sequence[str]) -> str:
    if sclite:
        try:
            return run_sclite(sclite, directory / "ref.trn", directory / "hyp.trn", sclite_options)
        except OSError as e:
            logging.warning("%s. Going on with the writer of this package", e)
    return report(read_trn(directory / "ref.trn"), read_trn(directory / "hyp.trn"), "hyp.trn")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ref", type=Path, required=True, help="Kaldi text file of references")
    parser.add_argument("--hyp", type=Path, required=True, help="Kaldi text file of hypotheses")
    parser.add_argument(
        "--utt2spk", type=Path, help="Speakers for the table; without it each utterance is one"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="Where score_* go")
    parser.add_argument("--metrics", nargs="+", choices=sorted(_TOKENIZERS), default=["wer", "cer"])
    parser.add_argument(
        "--sclite", default="auto", help="auto (if installed), none, or the program's path"
    )
    parser.add_argument("--score_opts", default="", help="More options for sclite, e.g. '-s'")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Score what the command line names."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    sclite = {"auto": find_sclite(), "none": None}.get(args.sclite, args.sclite)
    try:
        rates = score(
            ref=args.ref,
            hyp=args.hyp,
            utt2spk=args.utt2spk,
            out_dir=args.out_dir,
            metrics=args.metrics,
            sclite=sclite,
            sclite_options=shlex.split(args.score_opts),
        )
    except ScoringError as e:
        sys.exit(f"score: {e}")
    print(args.out_dir, *(f"{metric.upper()} {rate:.1f}" for metric, rate in rates.items()))


if __name__ == "__main__":
    main()
