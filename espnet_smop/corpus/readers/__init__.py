"""Corpus readers: a class for each layout on disk, which lists the utterances found there.

`CorpusReader` (`abs_reader`) is the interface; its ``read`` returns a `Corpus` of `Utterance` s
(`espnet_smop.corpus.utterance`). `READERS` maps names to the readers of this package, and
``module:Class`` names one of your own, for example ``local.my_corpus:MyReader`` in a recipe's
``local/my_corpus.py``.
"""

from pathlib import Path

from espnet_smop.class_path import import_class
from espnet_smop.corpus.readers.abs_reader import CorpusReader
from espnet_smop.corpus.readers.any_lrs3 import AnyLRS3Reader
from espnet_smop.corpus.readers.auto_avsr import AutoAVSRReader
from espnet_smop.corpus.readers.av_hubert import AVHuBERTReader
from espnet_smop.corpus.readers.folder import FolderReader
from espnet_smop.corpus.readers.lrs2 import LRS2Reader
from espnet_smop.corpus.readers.lrs3 import LRS3Reader
from espnet_smop.corpus.utterance import CorpusError

READERS: dict[str, type[CorpusReader]] = {
    "lrs3": LRS3Reader,
    "lrs2": LRS2Reader,
    "auto_avsr": AutoAVSRReader,
    "av_hubert": AVHuBERTReader,
    "any_lrs3": AnyLRS3Reader,
    "folder": FolderReader,
}
"""The readers of this package."""


def reader_class(name: str) -> type[CorpusReader]:
    """Return a reader of `READERS`, or import ``module:Class``.

    Raises:
        CorpusError: unknown name, or a class that cannot be imported or is not a `CorpusReader`.
    """
    if name in READERS:
        return READERS[name]
    if ":" not in name:
        raise CorpusError(
            f"unknown reader '{name}'; choose from {', '.join(READERS)} or give your own as "
            "module:Class"
        )
    try:
        return import_class(name, CorpusReader)
    except ValueError as e:
        raise CorpusError(f"reader '{name}' cannot be used: {e}") from None


def corpus_dir(path: str) -> Path:
    """Return a corpus directory as given by a user.

    Raises:
        CorpusError: not set or not a directory.
    """
    if not path:
        raise CorpusError("no corpus directory is given; recipes read it from db.sh")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise CorpusError(
            f"{root.absolute()}: no such directory; correct its path (recipes read it from db.sh)"
        )
    return root
