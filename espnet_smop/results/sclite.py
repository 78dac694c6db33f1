"""NIST's sclite, if it is installed."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

DEBIAN_DIRECTORY = "/usr/lib/sctk/bin"
"""Debian's package ``sctk`` keeps its programs off PATH."""


def find_sclite() -> str | None:
    """Return sclite's path, or None if it is not installed."""
    return shutil.which("sclite") or shutil.which("sclite", path=DEBIAN_DIRECTORY)


def run_sclite(
    sclite: str, ref_trn: str | os.PathLike, hyp_trn: str | os.PathLike, options: Sequence[str] = ()
) -> str:
    """Return sclite's full report on two trn files.

    Raises:
        OSError: sclite fails; the message is its output.
    """
    ref_trn, hyp_trn = Path(ref_trn).resolve(), Path(hyp_trn).resolve()
    command = [sclite, *options, "-r", ref_trn.name, "trn", "-h", hyp_trn.name, "trn"]
    # sclite splits no arguments, but truncates long paths: run it where the files are.
    done = subprocess.run(
        [*command, "-i", "rm", "-o", "all", "stdout"],
        cwd=ref_trn.parent,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0 or "Sum/Avg" not in done.stdout:
        raise OSError(f"{sclite} failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
