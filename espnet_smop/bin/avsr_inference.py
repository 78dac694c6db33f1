#!/usr/bin/env python3
r"""Recognise the utterances of a data directory with a trained model.

Example::

    python -m espnet_smop.bin.avsr_inference --avsr_train_config exp/avsr/config.yaml \
        --avsr_model_file exp/avsr/valid.acc.ave.pth --output_dir exp/decoded \
        --data_path_and_name_and_type dump/raw/test/wav.scp,speech,sound \
        --data_path_and_name_and_type dump/raw/test/video.scp,video,video
"""

import argparse
import collections
import contextlib
import logging
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet2.fileio.datadir_writer import DatadirWriter
from espnet2.legacy.utils.cli_utils import get_commandline_args
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.dataset import ESPnetDataset
from espnet2.utils import config_argparse
from espnet2.utils.types import str2bool, str2triple_str, str_or_none
from torch.utils.data import DataLoader

from espnet_smop.command import CommandParser, add_view_options, run
from espnet_smop.fileio.atomic import atomic_directory, check_replaceable
from espnet_smop.fileio.durations import longest_first, read_durations
from espnet_smop.fileio.table import read_table
from espnet_smop.inference import DEFAULTS, AVSRSpeech2Text, modalities_to_decode
from espnet_smop.modality import MODALITIES
from espnet_smop.noise_levels import (
    Decoded,
    InputsAtLevels,
    NoiseLevel,
    decode_at_levels,
    noise_level,
)
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.settings import check_none, gpu_problems


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
    levels: Sequence[NoiseLevel],
    noise_seed: int,
    task: str | None = None,
    rates: Mapping[str, int] | None = None,
    **generation: Any,
) -> None:
    """Decode all utterances; write ESPnet's n-best directories and ``costs.json``.

    ``output_dir`` is created when decoding has finished, with a subdirectory for each of several
    levels.

    Raises:
        ValueError: an argument or an input file is wrong.
    """
    noises = _noises(levels, noise, noise_seed)
    check_none(gpu_problems(ngpu, "decode"))
    check_replaceable(output_dir, "1best_recog", "clean/1best_recog", "snr*/1best_recog")
    modalities = modalities_to_decode(Path(avsr_train_config), task)
    _check_data_names(modalities, data_path_and_name_and_type, allow_variable_data_keys)
    keys = _ids([path for path, _, _ in data_path_and_name_and_type], key_file)
    set_all_random_seed(seed)
    speech2text = AVSRSpeech2Text(
        avsr_train_config,
        avsr_model_file,
        device="cuda" if ngpu > 0 else "cpu",
        noise=next(filter(None, noises.values()), None),  # checked before the model is loaded
        task=task,
        rates=rates,
        **{name: value for name, value in generation.items() if value is not None},
    )
    inputs = InputsAtLevels(
        {level: speech2text.preprocessor(conf) for level, conf in noises.items()},
        speech2text.collate,
    )
    dataset = ESPnetDataset(
        list(data_path_and_name_and_type), preprocess=inputs.prepare, float_dtype="float32"
    )
    AVSRTask.check_task_requirements(dataset, allow_variable_data_keys, False, inference=True)
    keys = longest_first(keys, read_durations(data_path_and_name_and_type))
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    loader = DataLoader(
        dataset, batch_sampler=batches, collate_fn=inputs.collate, num_workers=num_workers
    )
    with atomic_directory(output_dir) as directory, speech2text.repeated():
        several = len(noises) > 1
        places = {level: directory / level if several else directory for level in noises}
        decoded = decode_at_levels(speech2text, loader)
        decoded = _with_progress(decoded, utterances=len(keys), levels=len(noises))
        for level, (costs, unfinished) in _write(decoded, places, speech2text).items():
            costs.write(places[level])
            _summarise(costs, unfinished, level=f"{level}: " if several else "")


def _noises(
    levels: Sequence[NoiseLevel], file: str | None, seed: int
) -> dict[str, dict[str, Any] | None]:
    """Return each level's arguments of a NoiseAdder, None for clean speech."""
    noises = {}
    for name, snr in levels:
        if name in noises:
            raise ValueError(f"--snr has {name.removeprefix('snr')} twice: leave one out")
        if snr is not None and file is None:
            raise ValueError("--snr needs --noise FILE")
        noises[name] = None if snr is None else {"file": file, "snr": snr, "seed": seed}
    return noises


def _with_progress(
    decoded: Iterable[Decoded], *, utterances: int, levels: int
) -> Iterator[Decoded]:
    """Pass decoded batches on; log how many utterances are done and the time left."""
    unit = "utterances" if levels == 1 else f"utterances at {levels} noise levels"
    total = utterances * levels
    done, start = 0, time.perf_counter()
    for part in decoded:
        yield part
        done += len(part.uids)
        left = (time.perf_counter() - start) / done * (total - done)
        logging.info("%d of %d %s, %.0f s left", done, total, unit, left)


def _write(
    decoded: Iterable[Decoded], places: Mapping[str, Path], speech2text: AVSRSpeech2Text
) -> dict[str, tuple[DecodingCosts, int]]:
    """Write n-best directories; return each level's costs and number of unfinished outputs."""
    nbest = speech2text.generation["nbest"]
    costs: dict[str, list[DecodingCosts]] = {level: [] for level in places}
    unfinished = collections.Counter()
    with contextlib.ExitStack() as stack:
        writers = {k: stack.enter_context(DatadirWriter(place)) for k, place in places.items()}
        for part in decoded:
            for uid, hypotheses in zip(part.uids, part.nbest, strict=True):
                for n, hypothesis in enumerate(hypotheses[:nbest], start=1):
                    text, tokens, ids, score = speech2text.result(hypothesis)
                    recog = writers[part.level][f"{n}best_recog"]
                    recog["token"][uid] = " ".join(tokens)
                    recog["token_int"][uid] = " ".join(map(str, ids))
                    recog["score"][uid] = str(score)
                    recog["text"][uid] = text
                unfinished[part.level] += not hypotheses[0].finished
            costs[part.level].append(part.costs)
    return {k: (DecodingCosts.total(parts), unfinished[k]) for k, parts in costs.items()}


def _summarise(costs: DecodingCosts, unfinished: int, *, level: str) -> None:
    if unfinished:
        logging.warning(
            "%s%d of %d hypotheses reached max_new_tokens without an end of text (loops?)",
            level, unfinished, costs.utterances,
        )  # fmt: skip
    logging.info(
        "%sRTF: %.4f (%.1f s for %.1f s of speech), peak memory: %.0f MiB of the %s",
        level, costs.rtf, costs.decoding_seconds, costs.speech_seconds,
        costs.peak_memory_mib, costs.memory_of,
    )  # fmt: skip


def _ids(files: Sequence[str], key_file: str | None) -> list[str]:
    """Return the ids to decode; raise ValueError if a data file lacks one of them."""
    wanted = key_file or files[0]
    ids = list(read_table(wanted))
    for file in files:
        table = read_table(file)
        missing = [uid for uid in ids if uid not in table]
        if missing:
            raise ValueError(
                f"{file} lacks {len(missing)} of the {len(ids)} ids in {wanted}, such as "
                f"{missing[0]}: make both list the same ids"
            )
    return ids


def _check_data_names(
    taken: Collection[str], data: Sequence[tuple[str, str, str]], allow_more: bool
) -> None:
    """Raise ValueError unless the data match the model's inputs, before it is loaded."""
    names = {name: path for path, name, _ in data}
    for modality in MODALITIES.values():
        if modality.name in taken and modality.data_name not in names:
            raise ValueError(
                f"the model has a {modality.name}_frontend, but the data has no "
                f"'{modality.data_name}': add {','.join(modality.source('DIR'))}"
            )
        if modality.name not in taken and modality.data_name in names and not allow_more:
            raise ValueError(
                f"{names[modality.data_name]} is given, but the model has no "
                f"{modality.name}_frontend, or its task takes no {modality.name}: leave it out"
            )


class _ConfigParser(CommandParser, config_argparse.ArgumentParser):
    """Accepts ``--config`` as well."""


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = _ConfigParser(prog="python -m espnet_smop.bin.avsr_inference", description=__doc__)
    parser.add_argument("--log_level", type=str.upper, default="INFO")
    parser.add_argument("--output_dir", required=True, help="Directory for the n-best lists")
    parser.add_argument("--ngpu", type=int, default=0, help="0 decodes on the CPU")
    parser.add_argument("--seed", type=int, default=0, help="Random seed (sampling only)")
    parser.add_argument("--num_workers", type=int, default=1, help="Data loading processes")
    parser.add_argument("--batch_size", type=int, default=8, help="Utterances decoded together")
    group = parser.add_argument_group("Input data")
    group.add_argument(
        "--data_path_and_name_and_type",
        type=str2triple_str,
        action="append",
        required=True,
        help="SCP,NAME,TYPE, e.g. dump/raw/test/wav.scp,speech,sound",
    )
    group.add_argument(
        "--key_file", type=str_or_none, help="Decode only the utterance ids in this file"
    )
    group.add_argument("--allow_variable_data_keys", type=str2bool, default=False)
    group.add_argument("--noise", type=str_or_none, help="Noise file at 16 kHz")
    group.add_argument(
        "--snr",
        type=noise_level,
        nargs="+",
        default=argparse.SUPPRESS,  # not given differs from none
        help="Signal-to-noise ratio in dB of --noise; none for clean speech. Several, such as none "
        "5 -5, are decoded at once, into OUTPUT_DIR/{clean,snr5,snr-5}",
    )
    group.add_argument(
        "--noise_seed", type=int, default=0, help="Seed for choosing the noise segments"
    )
    group = parser.add_argument_group("Model")
    group.add_argument("--avsr_train_config", required=True, help="config.yaml of the experiment")
    group.add_argument("--avsr_model_file", type=str_or_none, help="Checkpoint")
    add_view_options(group)
    group = parser.add_argument_group(
        "Beam search", "Options not given are taken from the experiment's inference_conf, if any"
    )
    for name, text in (
        ("beam_size", "1 is greedy search"),
        ("nbest", "Hypotheses to write per utterance"),
        ("length_penalty", "Exponent of the length in the score; 1.0 is Hugging Face's default"),
        ("max_new_tokens", "Length limit in tokens, including the end of text"),
    ):
        default = DEFAULTS[name]
        group.add_argument(f"--{name}", type=type(default), help=f"{text} (default {default})")
    group.add_argument(
        "--contrast",
        type=float,
        help="Contrast audio and video with the audio alone, by this weight (default 0: off)",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Decode what the command line describes."""
    print(get_commandline_args(), file=sys.stderr)
    args = vars(get_parser().parse_args(cmd))
    args.pop("config", None)
    if args["noise"] is not None and "snr" not in args:
        raise ValueError("--noise needs --snr, the ratio in dB, or --snr none for clean speech")
    snrs = args.pop("snr", None)
    snrs = snrs if isinstance(snrs, list) else [snrs]  # a config may give one, or numbers
    levels = [x if isinstance(x, NoiseLevel) else noise_level(str(x)) for x in snrs]
    logging.basicConfig(
        level=args.pop("log_level"),
        format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
    )
    inference(levels=levels, **args)


if __name__ == "__main__":
    run(main)
