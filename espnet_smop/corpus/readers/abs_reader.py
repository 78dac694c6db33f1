"""The interface of corpus readers."""

import argparse
from abc import ABC, abstractmethod
from pathlib import Path

from espnet_smop.corpus.utterance import Corpus


class CorpusReader(ABC):
    """Lists the utterances of a corpus; a subclass's docstring is the help of ``prepare_corpus``.

    The constructor takes the reader's options as keywords, by the names that `add_arguments`
    gives them.
    """

    @classmethod  # noqa: B027 (optional)
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the reader's own options to the command line's; by default there are none."""

    @abstractmethod
    def read(self, root: Path) -> Corpus:
        """List a corpus's utterances, without decoding media.

        Clips that cannot be used, because a file or text is missing, are not errors: they go into
        the corpus's ``train_problems`` and ``test_problems``. Sets that the corpus does not define
        itself are split off the training utterances later (`espnet_smop.corpus.splits`).

        Args:
            root: the corpus directory; it exists.

        Raises:
            CorpusError: the directory does not have this layout.
        """
