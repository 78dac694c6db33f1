#!/usr/bin/env python3
"""Computed peak memory of training at the paper's sizes; needs no GPU and no weights.

    python benchmarks/memory.py --config egs2/lrs3/avsr_smop1/conf/train_avsr.yaml
    python benchmarks/memory.py --config … --llm meta-llama/Llama-3.1-8B \
        --whisper openai/whisper-medium.en --frames 1000 4000

A batch has so many video frames in utterances of 10 seconds with 40 text tokens. What is counted
and what is not says `espnet_smop/analysis/memory.py`.
"""

import argparse
import copy
import tempfile
from pathlib import Path

from espnet_smop.analysis.memory import training_memory
from espnet_smop.tasks.avsr import AVSRTask

SECONDS, TEXT = 10, 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="training config")
    parser.add_argument("--llm", help="another LLM than the config's")
    parser.add_argument("--whisper", help="another Whisper than the config's")
    parser.add_argument("--frames", type=int, nargs="+", default=[1000, 2000, 4000])
    given = parser.parse_args()
    config = vars(AVSRTask.get_parser().parse_args(["--config", given.config]))
    for part, model in (("decoder", given.llm), ("audio_frontend", given.whisper)):
        if model is not None:
            config[f"{part}_conf"] = {**config[f"{part}_conf"], "model": model}
    print("| frames | recompute | frozen | trained | encoders | backward | **peak, GB** |")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as directory:
        for recompute in (False, True):
            for frames in given.frames:
                settings = copy.deepcopy(config)
                settings["decoder_conf"]["gradient_checkpointing"] = recompute
                found = training_memory(
                    settings,
                    Path(directory),
                    utterances=max(1, round(frames / 25 / SECONDS)),
                    seconds=SECONDS,
                    text=TEXT,
                )
                parts = (found.frozen, found.trained, found.encoders, found.backward)
                cells = " | ".join(f"{n / 1e9:.1f}" for n in parts)
                print(
                    f"| {frames} | {'yes' if recompute else 'no'} | {cells} "
                    f"| {found.peak / 1e9:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
