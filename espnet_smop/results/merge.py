"""Merging the outputs of parallel decoding jobs into one decode directory."""

from pathlib import Path

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.results.transcripts import ScoringError, check_same_ids, read_text

# ``text`` is written last: where it exists, the merge was complete.
_FILES = ("token", "token_int", "score", "text")


def merge_hypotheses(*, ref: Path, log_dir: Path, num_jobs: int, out_dir: Path) -> int:
    """Merge the jobs' 1-best hypotheses, sorted by id, and add up their costs.

    Args:
        ref: Kaldi ``text`` of the test set.
        log_dir: directory with ``output.1`` to ``output.NUM_JOBS``.
        num_jobs: number of jobs.
        out_dir: the decode directory: receives ``text``, ``token``, ``token_int``, ``score`` and,
            where every job has one, ``costs.json``.

    Returns:
        The number of utterances.

    Raises:
        ScoringError: a job's output is missing, or the utterances are not those of ``ref``.
    """
    references = read_text(ref)
    jobs = [log_dir / f"output.{job}" for job in range(1, num_jobs + 1)]
    costs = [DecodingCosts.read(job) for job in jobs]
    if all(costs):
        DecodingCosts.total(costs).write(out_dir)
    for name in _FILES:
        merged: dict[str, str] = {}
        for job in jobs:
            part = read_text(job / "1best_recog" / name)
            twice = sorted(merged.keys() & part.keys())
            if twice:
                raise ScoringError(f"{log_dir}: '{twice[0]}' was decoded by two jobs")
            merged.update(part)
        check_same_ids(references, merged, reference_name=str(ref), other_name=f"{log_dir}: {name}")
        lines = [f"{utt} {merged[utt]}".rstrip() + "\n" for utt in sorted(merged)]
        with atomic_write(out_dir / name) as file:
            file.write("".join(lines))
    return len(references)
