"""A figure with its caption and the numbers behind it, and the files they are written to."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from espnet_smop.fileio.atomic import atomic_path, atomic_write

PNG_DPI = 200


@dataclass
class Exhibit:
    """One thing shown.

    Attributes:
        name: of its files.
        title: what it is.
        caption: what is drawn, of what, with which intervals.
        section: under which heading of the report it stands.
        figure: None for a table alone.
        rows: the numbers, one dictionary each with the same keys.
        table: header and lines to be read by people; empty where the figure says it all.
        names: number of leading columns of the table that are names.
    """

    name: str
    title: str
    caption: str
    section: str
    figure: Figure | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    table: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    names: int = 1

    @property
    def file_name(self) -> str:
        """Its name as a file's."""
        return re.sub(r"[^A-Za-z0-9.=+-]+", "_", self.name)

    def csv(self) -> str:
        """Return the numbers as CSV."""
        out = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(out, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return out.getvalue()

    @property
    def described(self) -> dict[str, Any]:
        """Title, caption and numbers for JSON, which knows no infinite ones: they are null."""
        data = [{key: _finite(value) for key, value in row.items()} for row in self.rows]
        return {"title": self.title, "caption": self.caption, "data": data}

    @cached_property
    def svg(self) -> bytes:
        """Return the figure as SVG, the same bytes for the same figure."""
        out = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": self.name}):
            self.figure.savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()

    def png(self) -> bytes:
        """Return the figure as PNG."""
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=PNG_DPI)
        return out.getvalue()

    def write(self, directory: Path) -> None:
        """Write ``NAME.{png,svg,csv,json}``."""
        if self.figure is not None:
            for suffix, content in (("png", self.png()), ("svg", self.svg)):
                with atomic_path(directory / f"{self.file_name}.{suffix}") as path:
                    path.write_bytes(content)
        with atomic_write(directory / f"{self.file_name}.csv") as file:
            file.write(self.csv())
        with atomic_write(directory / f"{self.file_name}.json") as file:
            json.dump(self.described, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
