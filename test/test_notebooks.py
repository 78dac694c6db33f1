"""The notebook runs, and what is committed of its outputs is small and whole."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs/notebooks/first_steps.ipynb"


def outputs(cells):
    """Return the printed text and the pictures of a notebook's cells."""
    found = [o for cell in cells if cell["cell_type"] == "code" for o in cell["outputs"]]
    printed = (o for o in found if o.get("name") == "stdout")  # warnings go to stderr
    text = "".join("".join(o["text"]) for o in printed)
    return text, [o["data"]["image/png"] for o in found if "image/png" in o.get("data", {})]


def check(text, pictures):
    scores = [float(s) for s in re.findall(r"^ *(-?[\d.]+)  +\d+ tokens", text, re.M)]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    for name in ("sound and lips", "sound alone", "lips alone"):
        assert re.search(rf"^{name} ", text, re.M)
    assert re.search(r"^video router, video: \d+ tokens of 0\.\d\d s, first", text, re.M)
    assert len(pictures) == 1


def test_committed_outputs():
    assert NOTEBOOK.stat().st_size < 100_000
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(o["output_type"] != "error" for cell in code for o in cell["outputs"])
    text, pictures = outputs(cells)
    check(text, pictures)
    assert "/" not in text.replace("[", "")  # no path of a machine


@pytest.mark.slow
def test_it_runs(experiment, dump_dir):
    pytest.importorskip("ipykernel", reason="needs the extra `notebook`: pip install '.[notebook]'")
    nbclient = pytest.importorskip(
        "nbclient", reason="needs the extra `notebook`: pip install '.[notebook]'"
    )
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert re.fullmatch(r'MODEL = ".*"\nDATA = ".*"', first.source)
    first.source = f"MODEL = {str(experiment)!r}\nDATA = {str(dump_dir)!r}"
    nbclient.NotebookClient(notebook, timeout=500, kernel_name="python3").execute()
    check(*outputs(notebook.cells))
