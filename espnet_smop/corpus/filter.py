"""Drop utterances that are too long, too short or without text, from training sets only."""

import dataclasses
from collections import Counter
from pathlib import Path

from espnet_smop.corpus import datadir
from espnet_smop.modality import MODALITIES


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of an utterance, inclusive; blanks count as characters."""

    min_seconds: float = 0.5
    max_seconds: float = 16.0
    min_chars: int = 1
    max_chars: int = 1000

    def broken_by(self, seconds: float, text: str) -> str | None:
        """Return why an utterance is dropped, or None."""
        if seconds < self.min_seconds:
            return f"shorter than {self.min_seconds:g} s"
        if seconds > self.max_seconds:
            return f"longer than {self.max_seconds:g} s"
        if len(text) < self.min_chars:
            return f"fewer than {self.min_chars} characters" if text else "empty text"
        if len(text) > self.max_chars:
            return f"more than {self.max_chars} characters"
        return None


def filter_utterances(in_dir: Path, out_dir: Path, limits: Limits) -> str:
    """Copy a formatted data directory without the utterances beyond the limits.

    ``out_dir/dropped.txt`` lists those: id, seconds, reason.

    Returns:
        One line: how many were kept and dropped, and why.

    Raises:
        DataDirError: no lengths, or nothing is left.
    """
    tables = datadir.read_data_dir(in_dir)
    modalities = [m for m in MODALITIES.values() if m.scp in tables]
    for modality in modalities:
        if modality.lengths_file not in tables:
            raise datadir.DataDirError(
                f"{in_dir}/{modality.lengths_file}: missing; run stage 3 first"
            )
    dropped: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    for utterance, text in tables["text"].items():
        seconds = max(int(tables[m.lengths_file][utterance]) / m.rate for m in modalities)
        reason = limits.broken_by(seconds, text)
        if reason:
            dropped[utterance] = f"{seconds:.2f} {reason}"
            reasons[reason] += 1
    kept = {n: {u: v for u, v in t.items() if u not in dropped} for n, t in tables.items()}
    line = f"{in_dir}: {len(kept['text'])} utterances kept, {len(dropped)} dropped"
    if reasons:
        line += " (" + ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items())) + ")"
    if not kept["text"]:
        raise datadir.DataDirError(f"{line}: nothing is left; widen the limits")
    datadir.write_data_dir(out_dir, kept)
    datadir.write_table(out_dir / "dropped.txt", dropped)
    return line
