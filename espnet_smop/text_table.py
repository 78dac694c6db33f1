"""Tables as text, for terminals and logs."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Return a table with aligned columns and a rule below its header.

    Args:
        header: names of the columns.
        rows: cells of each row, as many as the header has.
        align: a letter for each column, ``l`` or ``r``; columns beyond its end are left-aligned.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    sides = [">" if letter == "r" else "<" for letter in align.ljust(len(widths), "l")]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in (header, rule, *rows)
    )
