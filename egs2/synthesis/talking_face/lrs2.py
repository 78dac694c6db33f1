"""LRS2's directory and list format.

    OUT/mvlrs_v1/{main,pretrain}/<speaker>/<clip>.{mp4,txt,npy}
    OUT/{pretrain,train,val,test}.txt        <speaker>/<clip> per line, in test.txt with NF

The clips, their text files and their landmarks are those of LRS3's format; ``main`` has the clips
of ``trainval`` and ``test``, whose speakers differ.
"""

from pathlib import Path

from talking_face.files import write_text

_LISTS = {"train": "train", "valid": "val", "test": "test"}


def renamed(name: str) -> str:
    """Return a clip's path below ``OUT``, without suffix, from ``part/speaker/clip``."""
    part, clip = name.split("/", 1)
    return f"mvlrs_v1/{'pretrain' if part == 'pretrain' else 'main'}/{clip}"


def write_lists(out: Path, truth: list[dict]) -> None:
    """Write the lists of all clips, given their rows of truth."""
    lines: dict[str, str] = dict.fromkeys(("pretrain", *_LISTS.values()), "")
    for row in truth:
        part, clip = row["clip"].split("/", 1)
        name = "pretrain" if part == "pretrain" else _LISTS[row["split"]]
        noise = " NF" if name == "test" else ""
        lines[name] += f"{clip}{noise}\n"
    for name, text in lines.items():
        write_text(out / f"{name}.txt", text)
