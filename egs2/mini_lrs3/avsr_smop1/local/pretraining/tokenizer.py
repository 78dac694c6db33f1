#!/usr/bin/env python3
"""Train the tokenizer of a small LLM on text.

A byte-pair encoding is trained with sentencepiece and written as a Hugging Face tokenizer directory
with the same ids, which ``AutoTokenizer`` loads.

Example::

    python -m pretraining.tokenizer --kaldi --text dump/raw/train/text \
        --vocab_size 250 --out data/token_list/bpe_unigram250
"""

import argparse
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from espnet_smop.command import run
from espnet_smop.fileio.atomic import atomic_directory

UNK, BOS, EOS, PAD = SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
"""Special tokens; their ids are 0 to 3."""


def read_sentences(paths: Iterable[str | Path], *, kaldi: bool = False) -> list[str]:
    """Read one sentence per line; with ``kaldi``, lines are ``ID sentence``. Skips empty ones.

    Raises:
        ValueError: there is no sentence.
    """
    sentences = []
    for path in paths:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            sentence = line.partition(" ")[2] if kaldi else line
            if sentence.strip():
                sentences.append(sentence.strip())
    if not sentences:
        raise ValueError(f"no sentence in {', '.join(map(str, paths))}")
    return sentences


def train_sentencepiece(sentences: Sequence[str], vocab_size: int) -> bytes:
    """Train a byte-pair encoding and return sentencepiece's model file. Deterministic.

    Raises:
        ValueError: the text does not yield ``vocab_size`` tokens, or has more characters.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            max_sentence_length=1 << 20,  # the default drops long lines
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as e:
        raise ValueError(
            f"no tokenizer with {vocab_size} tokens can be trained on {len(sentences)} sentences "
            f"({str(e).strip()}). Choose another --vocab_size"
        ) from e
    return model.getvalue()


def to_hugging_face(model: bytes) -> PreTrainedTokenizerFast:
    """Convert the model of ``train_sentencepiece`` to a tokenizer with the same ids."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(i) for i in range(len(processor))]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    # Sentencepiece joins the neighbours that make the earliest token. Every split of that token is
    # therefore a merge, ranked by the token's id.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces[len(SPECIALS) :]
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=UNK, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(" +"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def get_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m pretraining.tokenizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--text", nargs="+", required=True, help="text files, one sentence per line"
    )
    parser.add_argument("--kaldi", action="store_true", help="lines are `ID sentence`")
    parser.add_argument("--vocab_size", type=int, required=True, help="including 4 special tokens")
    parser.add_argument("--out", required=True, help="directory to write; replaced if it exists")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = get_parser().parse_args(cmd)
    sentences = read_sentences(args.text, kaldi=args.kaldi)
    model = train_sentencepiece(sentences, args.vocab_size)
    tokenizer = to_hugging_face(model)
    with atomic_directory(args.out) as directory:
        tokenizer.save_pretrained(directory)
        (directory / "sentencepiece.model").write_bytes(model)
    per_sentence = sum(len(tokenizer(s).input_ids) for s in sentences) / len(sentences)
    logging.info(
        f"{args.out}: {len(tokenizer)} tokens from {len(sentences)} sentences, "
        f"{per_sentence:.1f} tokens a sentence"
    )


if __name__ == "__main__":
    run(main)
