"""Join the outputs of the format jobs into one data directory, with a report."""

from collections import Counter
from pathlib import Path

from espnet_smop.corpus import datadir
from espnet_smop.corpus.format_job import (
    clip_paths,
    is_done,
    keys,
    latest_records,
    read_records,
    read_settings,
    recordings,
)
from espnet_smop.fileio.atomic import PARTIAL, atomic_write
from espnet_smop.modality import MODALITIES


def combine(data_dir: Path, out_dir: Path, *, allow_broken: bool = False) -> str:
    """Write ``out_dir``'s Kaldi tables from the jobs' records.

    ``out_dir/report.txt`` lists the number of utterances and hours, the broken utterances with
    the reason, and those that were kept by a fallback.

    Args:
        data_dir: the data directory that was formatted.
        out_dir: where the jobs wrote.
        allow_broken: let a test set lose its broken utterances.

    Returns:
        The report.

    Raises:
        DataDirError: jobs are missing, a test set has broken utterances, or nothing is left.
    """
    tables = datadir.read_data_dir(data_dir)
    settings = read_settings(out_dir)
    made, failed = latest_records(read_records(out_dir))
    utt2spk = tables["utt2spk"]
    landmarks = tables.get("landmarks.scp", {})
    good, broken, undone = {}, {}, []
    for recording in recordings(tables):
        wanted = keys(recording, landmarks.get(recording.id), settings["settings"])
        for utterance, key in wanted.items():
            record, failure = made.get(utterance), failed.get(utterance)
            files = clip_paths(recording, out_dir, utt2spk[utterance], utterance)
            if is_done(record, key, files.values()):
                good[utterance] = (record, files)
            elif failure is not None and failure.key == key:
                broken[utterance] = failure.error
            else:
                undone.append(utterance)
    if undone:
        raise datadir.DataDirError(
            f"{data_dir}: {len(undone)} utterances are not formatted yet ({undone[0]}, …); "
            "run stage 3 again, it continues where it stopped"
        )
    for leftover in (out_dir / "data").rglob(f"{PARTIAL}*"):
        leftover.unlink()  # of a killed job; none runs now
    report = _report(good, broken)
    with atomic_write(out_dir / "report.txt") as file:
        file.write(report)
    if broken and settings["keep_all"] and not allow_broken:
        listed = "; ".join(broken.values())
        raise datadir.DataDirError(
            f"test set {data_dir} would lose {len(broken)} utterances: {listed}. Repair them and "
            "run stage 3 again, or accept their loss with --allow_broken"
        )
    if not good:
        reason = next(iter(broken.values()), "no utterance")
        raise datadir.DataDirError(f"{data_dir}: nothing could be formatted ({reason})")
    made_tables: dict[str, dict[str, object]] = {
        "text": {u: tables["text"][u] for u in good},
        "utt2spk": {u: utt2spk[u] for u in good},
    }
    for modality in MODALITIES.values():
        if modality.scp in tables:
            made_tables[modality.scp] = {u: files[modality.name] for u, (_, files) in good.items()}
            made_tables[modality.lengths_file] = {
                u: record.length(modality) for u, (record, _) in good.items()
            }
    datadir.write_data_dir(out_dir, made_tables)
    return report


def _report(good: dict, broken: dict[str, str]) -> str:
    hours = sum(record.seconds for record, _ in good.values()) / 3600
    noted = {u: record.notes for u, (record, _) in good.items() if record.notes}
    kinds = Counter(note.split(":")[0] for notes in noted.values() for note in notes.split("; "))
    lines = [f"{len(good)} utterances, {hours:.2f} hours, {len(broken)} broken"]
    lines += [f"{count} × {kind}" for kind, count in sorted(kinds.items())]
    lines += [f"broken: {utterance}: {why}" for utterance, why in broken.items()]
    lines += [f"kept: {utterance}: {why}" for utterance, why in noted.items()]
    return "\n".join(lines) + "\n"
