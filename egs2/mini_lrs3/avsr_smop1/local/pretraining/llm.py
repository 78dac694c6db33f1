#!/usr/bin/env python3
"""Pretrain a small Llama on text from scratch.

Writes a directory that ``from_pretrained`` loads: the frozen LLM for a corpus too small for a real
one. The weights with the lowest validation loss are kept, and training stops once that loss no
longer falls. A complete directory made with the same settings from the same text is kept.

Example::

    python -m pretraining.llm --tokenizer data/token_list/bpe_unigram250 --kaldi \
        --text dump/raw/train/text --valid_text dump/raw/valid/text --out exp/base/llm
"""

import argparse
import copy
import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from espnet_smop.command import CommandHelp, run
from espnet_smop.fileio.atomic import atomic_directory
from pretraining.muon import muon_and_adamw, warmup_and_cosine
from pretraining.tokenizer import read_sentences

_SETTINGS = "pretraining.json"
_SECONDS_BETWEEN_LINES = 10.0


def build_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int = 192,
    num_layers: int = 4,
    num_heads: int = 4,
    num_kv_heads: int | None = None,
) -> LlamaForCausalLM:
    """Return a Llama with random weights and tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads or num_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def loss_sum(
    model: LlamaForCausalLM, batch: Sequence[torch.Tensor], given: Sequence[int] | None = None
) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy in nats, and the number of predicted tokens.

    Args:
        model: the LLM.
        batch: sequences of ids with BOS and EOS.
        given: number of ids at the beginning of each that are not predicted; 1 (BOS) by default.
    """
    ids = pad_sequence(batch, batch_first=True)  # (B, L)
    lengths = torch.tensor([len(s) for s in batch])
    index = torch.arange(ids.size(1))
    mask = index < lengths[:, None]
    logits = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1].long()).logits
    first = torch.ones_like(lengths) if given is None else torch.tensor(given)
    predicted = (mask & (index >= first[:, None]))[:, 1:]
    loss = F.cross_entropy(logits[predicted], ids[:, 1:][predicted], reduction="sum")
    return loss, int(predicted.sum())


def with_copies(
    sequences: Sequence[torch.Tensor], share: float, generator: random.Random, *, fillers: range
) -> tuple[list[torch.Tensor], list[int]]:
    """Put noisy renditions of the sentence before a share of the sequences.

    There are one or two, like sound and lips. A rendition repeats each token up to four times,
    inserts random tokens, and gets a random share of the tokens wrong.

    Args:
        sequences: ids with BOS and EOS.
        share: share of the sequences to change.
        generator: random generator.
        fillers: ids to insert or substitute.

    Returns:
        The sequences, and for each the number of ids that are not predicted.
    """
    documents, given = [], []
    for sequence in sequences:
        bos, *sentence, eos = sequence.tolist()
        heard = []
        if generator.random() < share:
            for _ in range(generator.randint(1, 2)):
                wrong = generator.choice((0.0, 0.1, 0.3))
                for token in sentence:
                    if generator.random() < wrong:
                        token = generator.choice(fillers)
                    heard += [token] * generator.randint(1, 4)
                    while generator.random() < 0.25:
                        heard.append(generator.choice(fillers))
        documents.append(torch.tensor([bos, *heard, *sentence, eos]))
        given.append(1 + len(heard))
    return documents, given


@torch.no_grad()
def perplexity(
    model: LlamaForCausalLM, sequences: Sequence[torch.Tensor], given: Sequence[int] | None = None
) -> float:
    """Return the perplexity per predicted token, EOS included; arguments as in `loss_sum`."""
    model.eval()
    total, tokens = 0.0, 0
    given = [1] * len(sequences) if given is None else given
    ordered = sorted(zip(sequences, given, strict=True), key=lambda pair: len(pair[0]))
    for start in range(0, len(ordered), 64):
        loss, count = loss_sum(model, *zip(*ordered[start : start + 64], strict=True))
        total += float(loss)
        tokens += count
    return math.exp(total / tokens)


def train(
    model: LlamaForCausalLM,
    training: Sequence[torch.Tensor],
    validation: Sequence[torch.Tensor],
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 3.0e-3,
    matrix_lr: float = 0.02,
    weight_decay: float = 0.01,
    patience: int = 4,
    copies: float = 0.0,
    seed: int = 0,
) -> float:
    """Train ``model`` in place and leave it with the weights that validate best.

    Args:
        model: the LLM.
        training: sequences of ids with BOS and EOS.
        validation: likewise; evaluated after each epoch.
        steps: number of updates. The learning rate warms up over a twentieth of them, then
            follows a cosine.
        batch_size: sequences per update.
        lr: peak learning rate of AdamW.
        matrix_lr: peak learning rate of Muon, which trains the layers' matrices.
        weight_decay: weight decay of both.
        patience: epochs without improvement after which training stops.
        copies: share of the training sequences that begin with noisy renditions of their sentence
            (see `with_copies`). Only the sentence itself is predicted. Large LLMs copy from their
            context, which turns projected tokens into text; a small one learns to copy only if
            it helps.
        seed: seed of the batches' order.

    Returns:
        The best validation perplexity.
    """
    optimizers = muon_and_adamw(model, lr=lr, matrix_lr=matrix_lr, weight_decay=weight_decay)
    schedules = warmup_and_cosine(optimizers, warmup=max(1, steps // 20), steps=steps)
    generator = random.Random(seed)
    fillers = range(4, model.config.vocab_size)  # after the special tokens
    heldout = with_copies(validation, copies, generator, fillers=fillers)
    best, best_weights, waited = math.inf, copy.deepcopy(model.state_dict()), 0
    started = last_line = time.monotonic()
    step = 0
    lengths = torch.tensor([len(sequence) for sequence in training])
    for epoch, batches in enumerate(_epochs(lengths, batch_size, seed), 1):
        model.train()
        total, tokens = 0.0, 0
        for indices in batches[: steps - step]:
            batch = [training[i] for i in indices]
            documents = with_copies(batch, copies, generator, fillers=fillers)
            loss, count = loss_sum(model, *documents)
            model.zero_grad(set_to_none=True)
            (loss / count).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            step += 1
            total += float(loss.detach())
            tokens += count
            now = time.monotonic()
            if now - last_line > _SECONDS_BETWEEN_LINES:
                last_line = now
                left = (now - started) / step * (steps - step)
                logging.info(
                    f"step {step}/{steps}, epoch {epoch}: perplexity "
                    f"{math.exp(total / tokens):.2f}, at most {left:.0f} s left"
                )
        valid = perplexity(model, *heldout)
        improved = valid < best
        logging.info(
            f"epoch {epoch}, step {step}/{steps}: training perplexity "
            f"{math.exp(total / tokens):.2f}, validation {valid:.2f}{' *' if improved else ''}"
        )
        if improved:
            best, best_weights, waited = valid, copy.deepcopy(model.state_dict()), 0
        else:
            waited += 1
        if step == steps or waited == patience:
            break
    model.load_state_dict(best_weights)
    return best


def _epochs(lengths: torch.Tensor, batch_size: int, seed: int) -> Iterator[list[list[int]]]:
    """Yield the shuffled batches of epoch after epoch.

    Sequences twice, four times, … as long as most get separate batches: among short ones, each
    would pad a whole batch.
    """
    generator = torch.Generator().manual_seed(seed)
    buckets = (lengths / lengths.median()).log2().floor().clamp_min(0)
    while True:
        order = torch.randperm(len(lengths), generator=generator)
        batches = order[buckets[order].argsort(stable=True)].split(batch_size)
        yield [batches[i].tolist() for i in torch.randperm(len(batches), generator=generator)]


def get_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m pretraining.llm",
        description=__doc__,
        formatter_class=CommandHelp,
    )
    parser.add_argument("--tokenizer", required=True, help="Hugging Face tokenizer directory")
    parser.add_argument("--text", nargs="+", required=True, help="files, one sentence per line")
    parser.add_argument("--valid_text", nargs="+", required=True, help="likewise, held out")
    parser.add_argument("--kaldi", action="store_true", help="the lines are `ID sentence`")
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--hidden_size", type=int, default=192)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--num_heads", type=int, default=4)
    parser.add_argument("--num_kv_heads", type=int, help="the number of heads if not given")
    parser.add_argument("--epochs", type=int, default=20, help="at most")
    parser.add_argument("--steps", type=int, help="updates at most, instead of --epochs")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3.0e-3, help="peak learning rate of AdamW")
    parser.add_argument(
        "--matrix_lr", type=float, default=0.02, help="peak learning rate of Muon (the layers)"
    )
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--patience", type=int, default=4, help="epochs without improvement")
    parser.add_argument(
        "--copies",
        type=float,
        default=0.0,
        help="share of training sequences that begin with noisy renditions of their sentence, so "
        "that the model learns to copy from its context as large ones do",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = get_parser().parse_args(cmd)
    settings = _settings(args)
    written = Path(args.out, _SETTINGS)
    if written.is_file() and json.loads(written.read_text()) == settings:
        logging.info(f"{args.out} is complete: kept")
        return

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    training, validation = (
        [_sequence(tokenizer, sentence) for sentence in read_sentences(paths, kaldi=args.kaldi)]
        for paths in (args.text, args.valid_text)
    )
    torch.manual_seed(args.seed)
    model = build_model(
        tokenizer,
        hidden_size=args.hidden_size,
        num_layers=args.num_layers,
        num_heads=args.num_heads,
        num_kv_heads=args.num_kv_heads,
    )
    batches = math.ceil(len(training) / args.batch_size)
    logging.info(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(training)} sentences, "
        f"{batches} updates an epoch"
    )
    best = train(
        model,
        training,
        validation,
        steps=args.epochs * batches if args.steps is None else args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        matrix_lr=args.matrix_lr,
        weight_decay=args.weight_decay,
        patience=args.patience,
        copies=args.copies,
        seed=args.seed,
    )
    with atomic_directory(args.out) as directory:
        model.half().save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        (directory / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
    logging.info(f"{args.out}: validation perplexity {best:.2f}")


def _sequence(tokenizer: PreTrainedTokenizerBase, sentence: str) -> torch.Tensor:
    ids = tokenizer(sentence, add_special_tokens=False).input_ids
    return torch.tensor([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id])


def _settings(args: argparse.Namespace) -> dict:
    """Return what determines the result: the options, and the contents of the files."""
    files = {
        "text": args.text,
        "valid_text": args.valid_text,
        "tokenizer": [Path(args.tokenizer, "tokenizer.json")],
    }
    hashes = {
        name: [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
        for name, paths in files.items()
    }
    options = {k: v for k, v in vars(args).items() if k not in (*files, "out")}
    return options | hashes


if __name__ == "__main__":
    run(main)
