"""LRS3, or a corpus like it, in any of its layouts."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.corpus.readers.abs_reader import CorpusReader
from espnet_smop.corpus.readers.auto_avsr import AutoAVSRReader
from espnet_smop.corpus.readers.av_hubert import AVHuBERTReader
from espnet_smop.corpus.readers.lrs3 import LRS3Reader
from espnet_smop.corpus.utterance import Corpus, CorpusError


class AnyLRS3Reader(CorpusReader):
    """LRS3 as distributed or as prepared by auto_avsr or AV-HuBERT, detected by its files.

    Example::

        python -m espnet_smop.bin.prepare_corpus any_lrs3 --root DIR --out_dir data
    """

    def __init__(
        self,
        *,
        train_parts: Sequence[str] | None = None,
        max_seconds: float = 16.0,
        landmarks_dir: Path | None = None,
    ):
        # Prepared layouts first: their directories may be within that of the raw corpus.
        self.readers = (
            AutoAVSRReader(train_parts=train_parts, max_seconds=max_seconds),
            AVHuBERTReader(train_parts=train_parts),
            LRS3Reader(
                train_parts=train_parts, max_seconds=max_seconds, landmarks_dir=landmarks_dir
            ),
        )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of `LRS3Reader`, which include the other readers'."""
        LRS3Reader.add_arguments(parser)

    def read(self, root: Path) -> Corpus:
        """Detect the layout and read the corpus; see `CorpusReader`."""
        for reader in self.readers:
            if reader.is_here(root):
                return reader.read(root)
        raise CorpusError(
            f"{root}: neither LRS3 as distributed (pretrain/, trainval/, test/) nor prepared by "
            "auto_avsr (labels/*.csv) or AV-HuBERT (433h_data/train.tsv); correct its path "
            "(recipes read it from db.sh)"
        )
