#!/usr/bin/env python3
"""Write the phones of eSpeak NG's voices, with times, to DATA_DIR/phones.ctm.

The report uses them to show which experts take which classes of phones. Utterances of other voices
are skipped.

    local/phones.py dump/raw/test_synthetic
    python -m espnet_smop.bin.results report exp --data_dir dump/raw/test_synthetic
"""

import argparse
import sys
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

from voices import ESPEAK, ESPEAK_TEST

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.table import TableError, read_table
from talking_face.speech import SAMPLE_RATE, Segment

_VOICES = {voice.name: voice for voice in (*ESPEAK, *ESPEAK_TEST)}


def spoken_again(utterance: tuple[str, str, str]) -> tuple[int, list[Segment]]:
    """Return the number of samples and the phones of an utterance: id, speaker and text."""
    _, speaker, text = utterance
    samples, phones = _VOICES[speaker].say_phones(text)
    return len(samples), phones


def read_utterances(data_dir: Path) -> Iterator[tuple[str, str, str]]:
    """Yield id, speaker and text of the utterances by eSpeak NG's voices."""
    texts = read_table(data_dir / "text")
    for key, speaker in read_table(data_dir / "utt2spk").items():
        if speaker in _VOICES:
            yield key, speaker, texts[key]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path, help="formatted data directory, also for the file")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    args = parser.parse_args()
    out = args.data_dir / "phones.ctm"
    try:
        lengths = read_table(args.data_dir / "utt2num_samples")
        utterances = list(read_utterances(args.data_dir))
    except TableError as error:
        sys.exit(f"phones: {error}")
    with Pool(args.nj) as pool, atomic_write(out) as file:
        spoken = pool.imap(spoken_again, utterances, chunksize=8)
        for (key, _, _), (count, phones) in zip(utterances, spoken, strict=True):
            if count != int(lengths[key]):
                sys.exit(
                    f"phones: {key} has {lengths[key]} samples, but eSpeak NG speaks {count}: give "
                    "a set at its own speed, made with this version of espeakng-loader"
                )
            for phone in phones:
                duration = phone.end - phone.start
                file.write(f"{key} 1 {phone.start:.4f} {duration:.4f} {phone.label}\n")
    print(f"{out}: phones of {len(utterances)} utterances, at {SAMPLE_RATE} Hz")


if __name__ == "__main__":
    main()
