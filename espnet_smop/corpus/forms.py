"""The forms in which a corpus may lie on disk, recognised by looking."""

from collections.abc import Sequence
from pathlib import Path

from espnet_smop.corpus import auto_avsr, av_hubert, lrs3
from espnet_smop.corpus.utterance import Corpus, CorpusError

# Prepared forms first: their directories may lie within that of the raw corpus.
FORMS = {"auto_avsr": auto_avsr, "av_hubert": av_hubert, "raw": lrs3}


def read_corpus(
    directory: str,
    *,
    parts: Sequence[str] | None,
    max_seconds: float,
    landmarks_dir: Path | None = None,
    option: str = "LRS3= in db.sh",
) -> Corpus:
    """Recognise a corpus directory's form and read it.

    Args:
        directory: where it is.
        parts: which parts training is made of; None takes all.
        max_seconds: length to which the raw form's long clips are cut.
        landmarks_dir: the raw form's landmark files, if not beside the clips.
        option: what the user sets the directory by, for messages.

    Raises:
        CorpusError: not set, missing, or of no known form.
    """
    if not directory:
        raise CorpusError(f"no corpus directory: write it as {option}")
    root = Path(directory).expanduser()
    if not root.is_dir():
        raise CorpusError(f"{root.absolute()}: no such directory; correct {option}")
    for form in FORMS.values():
        if form.is_here(root):
            return form.read(
                root, parts=parts, max_seconds=max_seconds, landmarks_dir=landmarks_dir
            )
    raise CorpusError(
        f"{root}: neither LRS3 as distributed (pretrain/, trainval/, test/) nor prepared by "
        f"auto_avsr (labels/*.csv) or AV-HuBERT (433h_data/train.tsv); correct {option}"
    )
