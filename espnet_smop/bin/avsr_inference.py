#!/usr/bin/env python3
"""Recognise the utterances of a data directory with a trained model.

Example::

    python -m espnet_smop.bin.avsr_inference --avsr_train_config exp/avsr/config.yaml \
        --avsr_model_file exp/avsr/valid.acc.ave.pth --output_dir out \
        --data_path_and_name_and_type dump/raw/test/wav.scp,speech,sound \
        --data_path_and_name_and_type dump/raw/test/video.scp,video,video
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from espnet2.fileio.datadir_writer import DatadirWriter
from espnet2.fileio.read_text import read_2columns_text
from espnet2.legacy.utils.cli_utils import get_commandline_args
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.dataset import ESPnetDataset
from espnet2.utils import config_argparse
from espnet2.utils.types import str2bool, str2triple_str, str_or_none
from torch.utils.data import DataLoader

from espnet_smop.checkpoint.package import open_package, resolved_config, weights_file
from espnet_smop.decoder.llm import Hypothesis
from espnet_smop.fileio.atomic import atomic_directory
from espnet_smop.modality import FRAME_RATE, MODALITIES, SAMPLE_RATE
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.tasks.avsr import AVSRTask

Result = list[tuple[str, list[str], list[int], float]]
"""n-best list of (text, tokens, token ids, score)."""

DEFAULTS = {"beam_size": 15, "nbest": 1, "length_penalty": 0.0, "max_new_tokens": 128}
"""How to decode where neither arguments nor the experiment's config say."""


class AVSRSpeech2Text:
    """Recognises utterances, one or many at a time.

    Example::

        speech2text = AVSRSpeech2Text("exp/avsr/config.yaml", "exp/avsr/valid.acc.ave.pth")
        [(text, tokens, ids, score), *_] = speech2text(speech=waveform, video=mouth_crops)
        speech2text = AVSRSpeech2Text.from_pretrained("packed.zip", beam_size=5)

    Args:
        avsr_train_config: ``config.yaml`` of the experiment.
        avsr_model_file: its checkpoint.
        device: where to compute.
        noise: arguments of :class:`~espnet_smop.train.noise.NoiseAdder`, or None.
        generation: arguments of the decoder's ``generate`` (``beam_size``, ``nbest``, …), over
            those that the experiment's ``inference_conf`` gives, and these over ``DEFAULTS``.
    """

    def __init__(
        self,
        avsr_train_config: str | Path,
        avsr_model_file: str | Path | None = None,
        *,
        device: str = "cpu",
        noise: dict[str, Any] | None = None,
        **generation: Any,
    ):
        self.model, self.train_args = AVSRTask.load_model(
            str(avsr_train_config), avsr_model_file and str(avsr_model_file), device
        )
        conf = dict(self.train_args.preprocessor_conf)
        conf["noise"], conf["noise_in_validation"] = noise, noise is not None
        self.train_args.preprocessor_conf = conf
        self.preprocess = AVSRTask.build_preprocess_fn(self.train_args, train=False)
        self.collate = AVSRTask.build_collate_fn(self.train_args, train=False)
        self.device = device
        self.generation = {**DEFAULTS, **self.train_args.inference_conf, **generation}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        whisper: str | None = None,
        avhubert: str | None = None,
        llm: str | None = None,
        **options: Any,
    ) -> "AVSRSpeech2Text":
        """Load a packed model, or an experiment that was not packed.

        Args:
            model: directory or zip file that `espnet_smop.bin.pack` wrote, hub id of an uploaded
                one, or directory of an experiment. While a zip file is loaded it lies unpacked in
                the system's temporary directory (``TMPDIR``), base models that it holds included.
            whisper: directory or hub id to take instead of what the model's config names; it has
                to be the same model. So are the next two.
            avhubert: see there.
            llm: see there.
            options: as of the class: ``device``, ``noise``, ``beam_size``, …

        Raises:
            PackageError: it is no package, or a zip file that is not trusted.
            BaseModelError: the package or a base model is not to be had, or is another one.
        """
        with open_package(model) as directory, tempfile.TemporaryDirectory() as temporary:
            bases = {"whisper": whisper, "avhubert": avhubert, "llm": llm}
            origin = Path(model).parent if Path(model).is_file() else None
            settings = resolved_config(directory, bases, origin=origin)
            config = Path(temporary) / "config.yaml"
            config.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
            return cls(config, weights_file(directory), **options)

    def __call__(
        self,
        speech: np.ndarray | None = None,
        video: np.ndarray | None = None,
        *,
        uid: str = "",
        allow_missing: bool = False,
    ) -> Result:
        """Recognise one utterance.

        Args:
            speech: waveform ``(samples,)`` at 16 kHz.
            video: grey mouth crops, uint8 ``(T, 96, 96)`` at 25 fps.
            uid: utterance id; decides the stretch of noise, if there is any.
            allow_missing: do with one input where the model has two.
        """
        data = {"speech": speech, "video": video}
        data = {name: value for name, value in data.items() if value is not None}
        _, batch = self.collate([(uid, self.preprocess(uid, data))])
        [nbest] = self.hypotheses(batch, allow_missing=allow_missing)
        return [self.result(hypothesis) for hypothesis in nbest]

    @torch.no_grad()
    def recognise(self, batch: dict[str, torch.Tensor]) -> list[Result]:
        """Recognise a collated batch of preprocessed utterances."""
        return [
            [self.result(hypothesis) for hypothesis in nbest] for nbest in self.hypotheses(batch)
        ]

    @torch.no_grad()
    def hypotheses(
        self, batch: dict[str, torch.Tensor], *, allow_missing: bool = False
    ) -> list[list[Hypothesis]]:
        """Return the decoder's n-best lists for a collated batch."""
        batch = {name: value.to(self.device) for name, value in batch.items()}
        inputs = (batch.get(n) for n in ("speech", "speech_lengths", "video", "video_lengths"))
        projected = self.model.project(*inputs, allow_missing=allow_missing)
        return self.model.decoder.generate(projected.tokens, projected.lengths, **self.generation)

    def result(self, hypothesis: Hypothesis) -> tuple[str, list[str], list[int], float]:
        """Return text, tokens, token ids and score."""
        tokens = self.model.decoder.tokenizer.convert_ids_to_tokens(hypothesis.ids)
        # Rows that an imported model added to the vocabulary may have no name here.
        ids = zip(tokens, hypothesis.ids, strict=True)
        tokens = [f"<{i}>" if token is None else token for token, i in ids]
        return hypothesis.text, tokens, hypothesis.ids, hypothesis.score


def order_by_length(keys: Sequence[str], lengths: dict[str, float]) -> list[str]:
    """Return the ids from the longest to the shortest; those of unknown length first."""
    return sorted(keys, key=lambda key: (-lengths.get(key, float("inf")), key))


def read_lengths(data_path_and_name_and_type: Iterable[tuple[str, str, str]]) -> dict[str, float]:
    """Return durations in seconds from ``utt2num_{samples,frames}`` beside an scp, if there."""
    by_data_name = {modality.data_name: modality for modality in MODALITIES.values()}
    for path, name, _ in data_path_and_name_and_type:
        modality = by_data_name.get(name)
        if modality and (file := Path(path).parent / modality.lengths_file).is_file():
            lengths = read_2columns_text(file)
            return {key: int(value) / modality.rate for key, value in lengths.items()}
    return {}


def duration_in_samples(batch: dict[str, torch.Tensor]) -> int:
    """Return how many samples at 16 kHz the utterances of a batch last in all."""
    if "speech_lengths" in batch:
        return int(batch["speech_lengths"].sum())
    return int(batch["video_lengths"].sum()) * SAMPLE_RATE // FRAME_RATE


def peak_memory(device: str) -> tuple[float, str]:
    """Return the most memory used so far in MiB, and whose: the ``GPU``'s or the ``process``'s."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20, "GPU"
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 2**10, "process"


def inference(
    *,
    output_dir: str,
    avsr_train_config: str,
    avsr_model_file: str | None,
    data_path_and_name_and_type: Sequence[tuple[str, str, str]],
    key_file: str | None,
    allow_variable_data_keys: bool,
    batch_size: int,
    ngpu: int,
    seed: int,
    num_workers: int,
    noise: str | None,
    snr: float | None,
    noise_seed: int,
    **generation: Any,
) -> None:
    """Decode all utterances; write ESPnet's n-best directories and ``costs.json``.

    ``output_dir`` appears when all is written.

    Raises:
        ValueError: an argument or an input file is wrong.
    """
    if snr is not None and noise is None:
        raise ValueError("--snr needs --noise FILE")
    if ngpu > 0 and not torch.cuda.is_available():
        raise ValueError(
            f"--ngpu {ngpu}, but no GPU is to be seen here. Check nvidia-smi, CUDA_VISIBLE_DEVICES "
            "and the job's partition, or decode on the CPU by --gpu_inference false"
        )
    set_all_random_seed(seed)
    device = "cuda" if ngpu > 0 else "cpu"
    speech2text = AVSRSpeech2Text(
        avsr_train_config,
        avsr_model_file,
        device=device,
        noise={"file": noise, "snr": snr, "seed": noise_seed} if snr is not None else None,
        **{name: value for name, value in generation.items() if value is not None},
    )
    dataset = ESPnetDataset(
        list(data_path_and_name_and_type), preprocess=speech2text.preprocess, float_dtype="float32"
    )
    AVSRTask.check_task_requirements(dataset, allow_variable_data_keys, False, inference=True)
    lengths = read_lengths(data_path_and_name_and_type)
    keys = list(read_2columns_text(key_file)) if key_file else list(dataset)
    keys = order_by_length(keys, lengths)
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    loader = DataLoader(
        dataset, batch_sampler=batches, collate_fn=speech2text.collate, num_workers=num_workers
    )

    nbest = speech2text.generation["nbest"]
    done, unfinished, speech_seconds, start = 0, 0, 0.0, time.perf_counter()
    with atomic_directory(output_dir) as directory, DatadirWriter(directory) as writer:
        for uids, batch in loader:
            samples = duration_in_samples(batch)
            # These two lines are what ESPnet's calculate_rtf.py pairs
            logging.info("speech length: %d", samples)
            results = speech2text.hypotheses(batch)
            logging.info("best hypo: %s", " | ".join(r[0].text for r in results))
            for uid, hypotheses in zip(uids, results, strict=True):
                for n, hypothesis in enumerate(hypotheses[:nbest], start=1):
                    text, tokens, ids, score = speech2text.result(hypothesis)
                    recog = writer[f"{n}best_recog"]
                    recog["token"][uid] = " ".join(tokens)
                    recog["token_int"][uid] = " ".join(map(str, ids))
                    recog["score"][uid] = str(score)
                    recog["text"][uid] = text
                unfinished += not hypotheses[0].finished
            done += len(uids)
            speech_seconds += samples / SAMPLE_RATE
            left = (time.perf_counter() - start) / done * (len(keys) - done)
            logging.info("%d of %d utterances, %.0f s left", done, len(keys), left)
        decoding_seconds = time.perf_counter() - start
        costs = DecodingCosts(done, speech_seconds, decoding_seconds, *peak_memory(device))
        costs.write(directory)
    if unfinished:
        logging.warning(
            "%d of %d hypotheses reached the length cap without an end (repetition loops?)",
            unfinished, done,
        )  # fmt: skip
    logging.info(
        "RTF: %.4f (%.1f s for %.1f s of speech), peak memory: %.0f MiB of the %s",
        costs.rtf, decoding_seconds, speech_seconds, costs.peak_memory_mib, costs.memory_of,
    )  # fmt: skip


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = config_argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log_level", type=str.upper, default="INFO")
    parser.add_argument("--output_dir", required=True, help="Where the n-best directories go")
    parser.add_argument("--ngpu", type=int, default=0, help="0 decodes on the CPU")
    parser.add_argument("--seed", type=int, default=0, help="Random seed (sampling only)")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that load data")
    group = parser.add_argument_group("Input data")
    group.add_argument(
        "--data_path_and_name_and_type",
        type=str2triple_str,
        action="append",
        required=True,
        help="SCP,NAME,TYPE, e.g. dump/raw/test/wav.scp,speech,sound",
    )
    group.add_argument("--key_file", type=str_or_none, help="Decode only the ids of this file")
    group.add_argument("--allow_variable_data_keys", type=str2bool, default=False)
    group.add_argument("--noise", type=str_or_none, help="Noise file at 16 kHz")
    group.add_argument(
        "--snr",
        type=lambda x: None if x.lower() in ("", "none", "clean") else float(x),
        default=None,
        help="Add the noise at this ratio in dB (0 is 0 dB); none for clean speech",
    )
    group.add_argument("--noise_seed", type=int, default=0, help="Changes the stretches of noise")
    group = parser.add_argument_group("Model")
    group.add_argument("--avsr_train_config", required=True, help="config.yaml of the experiment")
    group.add_argument("--avsr_model_file", type=str_or_none, help="Checkpoint")
    group = parser.add_argument_group(
        "Beam search", "What is not given is taken from the experiment's inference_conf, if any"
    )
    group.add_argument("--batch_size", type=int, default=8, help="Utterances decoded together")
    for name, text in (
        ("beam_size", "1 is greedy search"),
        ("nbest", "Hypotheses written per utterance"),
        ("length_penalty", "Exponent of the length; 1.0 is Hugging Face's default"),
        ("max_new_tokens", "Length cap in tokens, end of text included"),
    ):
        default = DEFAULTS[name]
        group.add_argument(f"--{name}", type=type(default), help=f"{text} (default {default})")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Decode what the command line describes."""
    print(get_commandline_args(), file=sys.stderr)
    args = vars(get_parser().parse_args(cmd))
    args.pop("config", None)
    logging.basicConfig(
        level=args.pop("log_level"),
        format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
    )
    try:
        inference(**args)
    except (ValueError, OSError, RuntimeError) as e:
        logging.debug("", exc_info=True)
        sys.exit(f"avsr_inference: {e}")


if __name__ == "__main__":
    main()
