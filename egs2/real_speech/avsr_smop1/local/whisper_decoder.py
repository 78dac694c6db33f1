#!/usr/bin/env python3
r"""Decode test sets with Whisper's own decoder, as a reference for the same encoder.

Greedy, without digits (numbers come out as words, as in the references). Audio is padded to 30
seconds, as in Whisper's training, or to the batch's longest, as for the projector. Writes and
scores decode directories like those of an experiment, so that `results table` shows them.

Example, after stage 6:

    local/whisper_decoder.py --model downloads/whisper_base --output_dir exp/whisper_base \\
        --data_dir dump/raw/test_human dump/raw/test_synthetic
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sentences import words
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, WhisperForConditionalGeneration

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.sound import read_sound
from espnet_smop.fileio.table import read_table
from espnet_smop.frontend.whisper import WhisperFrontend, encode
from espnet_smop.results.sclite import find_sclite
from espnet_smop.results.score import score

START = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
END = "<|endoftext|>"
MAX_TOKENS = 100


class OwnDecoder:
    """Whisper's decoder on the frontend's output."""

    def __init__(self, model: Path, padding: str):
        self.frontend = WhisperFrontend(str(model), padding=padding, dtype="float32")
        self.padding = padding
        self.model = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
        ids = self.tokenizer.get_vocab()
        self.start = [ids[token] for token in START if token in ids]
        self.end = ids[END]
        figures = [i for token, i in ids.items() if any(c.isdigit() for c in token)]
        self.forbidden = torch.tensor([*figures, *range(self.end + 1, len(ids))])

    @torch.no_grad()
    def __call__(self, samples: list[np.ndarray]) -> list[str]:
        """Return the words of waveforms ``(samples,)`` at 16 kHz."""
        lengths = torch.tensor([len(s) for s in samples])
        speech = pad_sequence([torch.from_numpy(s) for s in samples], batch_first=True)
        if self.padding == "30s":
            # With the silence that the frontend cuts off: the decoder needs it to find the end.
            mel = self.frontend.log_mel(speech, lengths, self.frontend.max_samples)
            (features,) = encode(self.frontend.encoder, mel)
        else:
            features, _ = self.frontend(speech, lengths)
        said = torch.tensor([self.start] * len(samples))
        step, cache = said, None
        for _ in range(MAX_TOKENS):
            out = self.model.model.decoder(
                input_ids=step,
                encoder_hidden_states=features,
                past_key_values=cache,
                use_cache=True,
            )
            logits = self.model.proj_out(out.last_hidden_state[:, -1])
            logits[:, self.forbidden[self.forbidden < logits.size(1)]] = -torch.inf
            is_over = (said[:, len(self.start) :] == self.end).any(dim=1)
            step = torch.where(is_over, self.end, logits.argmax(dim=-1))[:, None]
            said, cache = torch.cat([said, step], dim=1), out.past_key_values
            if bool((is_over | (step[:, 0] == self.end)).all()):
                break
        texts = self.tokenizer.batch_decode(said, skip_special_tokens=True)
        return [words(text) for text in texts]


def main() -> None:
    """Decode and score each data directory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="directory of a whole Whisper")
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="test sets")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets decode_PADDING/SET")
    parser.add_argument("--padding", default="30s", choices=("30s", "longest"))
    parser.add_argument("--batch_size", type=int, default=8)
    args = parser.parse_args()
    decoder = OwnDecoder(args.model, args.padding)
    for data_dir in args.data_dir:
        sounds = sorted(read_table(data_dir / "utt2num_samples").items(), key=lambda kv: int(kv[1]))
        paths, texts = read_table(data_dir / "wav.scp"), {}
        for i in tqdm(range(0, len(sounds), args.batch_size), desc=data_dir.name):
            keys = [key for key, _ in sounds[i : i + args.batch_size]]
            texts |= dict(zip(keys, decoder([read_sound(paths[k]) for k in keys]), strict=True))
        out = args.output_dir / f"decode_{args.padding}" / data_dir.name
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(out / "text") as file:
            file.writelines(f"{key} {text}\n" for key, text in sorted(texts.items()))
        rates = score(
            ref=data_dir / "text", hyp=out / "text", utt2spk=data_dir / "utt2spk", out_dir=out,
            metrics=["wer", "cer"], sclite=find_sclite(), sclite_options=[],
        )  # fmt: skip
        print(out, *(f"{metric.upper()} {rate:.1f}" for metric, rate in rates.items()))


if __name__ == "__main__":
    main()
