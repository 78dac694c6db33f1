"""The report: one HTML file that needs nothing beside it, neither network nor scripts."""

import base64
from collections.abc import Sequence
from html import escape

from espnet_smop.analysis.exhibits import Exhibit

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 58rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #bbb; }
h3 { margin-bottom: .3rem; } nav a { margin-right: 1rem; display: inline-block; }
a { color: #0b5394; } code { font-size: .9em; }
figure { margin: 0 0 1.5rem; } figcaption, .note { color: #444; font-size: .9rem; }
.wide { overflow-x: auto; } .wide img { display: block; width: 100%; min-width: 34rem;
       max-width: 54rem; height: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .5rem 0; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #666; white-space: normal;
     vertical-align: bottom; } .name { text-align: left; }
@media screen and (max-width: 38rem) {
  .wide::before { content: "swipe sideways to see all →"; position: sticky; left: 0;
                  display: block; color: #666; font-size: .75rem; }
}
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; } nav, .files { display: none; }
  .wide { overflow: visible; } .wide img { min-width: 0; max-width: 100%; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  table { font-size: 7.5pt; } th, td { padding: .1rem .3rem; white-space: normal; }
}
"""


def render(title: str, notes: Sequence[str], exhibits: Sequence[Exhibit]) -> str:
    """Return the page.

    Args:
        title: of the page.
        notes: paragraphs before the first exhibit, as text.
        exhibits: what is shown; those of a section follow each other.
    """
    sections = list(dict.fromkeys(e.section for e in exhibits))
    links = "".join(f'<a href="#s{i}">{escape(s)}</a>' for i, s in enumerate(sections))
    body = [f"<h1>{escape(title)}</h1>"]
    body += [f'<p class="note">{escape(note)}</p>' for note in notes]
    body.append(f"<nav>{links}</nav>")
    for i, section in enumerate(sections):
        body.append(f'<h2 id="s{i}">{escape(section)}</h2>')
        body += [_exhibit(e) for e in exhibits if e.section == section]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be fetched, whatever names of systems or transcripts hold
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _exhibit(exhibit: Exhibit) -> str:
    parts = [f"<h3>{escape(exhibit.title)}</h3>", "<figure>"]
    if exhibit.figure is not None:
        image = _data("image/svg+xml", exhibit.svg)
        parts.append(
            f'<div class="wide"><img alt="{escape(exhibit.title)}. The caption says what is drawn, '
            f'the numbers are below or in the CSV file." src="{image}"></div>'
        )
    header, lines = exhibit.table
    if lines:
        parts.append(f'<div class="wide">{_table(header, lines, exhibit.names)}</div>')
    link = ""
    if exhibit.rows:
        address = _data("text/csv", exhibit.csv().encode())
        link = f' <a class="files" download="{exhibit.file_name}.csv" href="{address}">CSV</a>'
    parts.append(f"<figcaption>{escape(exhibit.caption)}{link}</figcaption>")
    return "\n".join([*parts, "</figure>"])


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=name' if k < names else ''}>{escape(str(cell))}</{tag}>"
            for k, cell in enumerate(cells)
        )

    rows = "\n".join(f"<tr>{row(line, 'td')}</tr>" for line in lines)
    return (
        f"<table>\n<thead><tr>{row(header, 'th')}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
