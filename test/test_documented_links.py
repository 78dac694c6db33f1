"""Links between documents lead to files and headings that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")


def documents():
    """Return README, CHANGES, and the documents of `docs/` and of the recipes."""
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("egs2/*/*/README.md")]


def anchors(document):
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def dead_links(document):
    """Return what a document's links name in vain."""
    dead = []
    for path, anchor in LINK.findall(document.read_text()):
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append((path, anchor))
    return dead


def test_links():
    found = {document: dead_links(document) for document in documents()}
    assert len(found) > 15
    assert not any(found.values()), {str(d): dead for d, dead in found.items() if dead}


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](page.md#one-two) [b](#one) [c](no.md) [d](https://no.org)\n")
    assert dead_links(page) == [("", "one"), ("no.md", "")]


def test_the_front_page_leads_to_every_guide():
    front = (ROOT / "README.md").read_text()
    for guide in ROOT.glob("docs/guides/*.md"):
        assert f"](docs/guides/{guide.name})" in front, guide.name
