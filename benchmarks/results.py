#!/usr/bin/env python3
"""The results of one machine: a file of all figures, and pages made of such files.

    python benchmarks/results.py collect PARTS_DIR results/MACHINE.json   # done by gpu.sh
    python benchmarks/results.py show benchmarks/results/*.json           # as Markdown

A part has the files ``NAME.md`` (its command's output), ``NAME.json`` (its figures, if it got that
far) and ``NAME.run`` (lines ``status``, ``seconds`` and ``command``, each with its value).
"""

import argparse
import json
import platform
from pathlib import Path

import torch

STATUS = {"0": "complete", "124": "stopped at its time limit", "137": "stopped at its time limit"}


def machine(device: str) -> dict[str, str | int]:
    """Describe the machine and the relevant software."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    found = {"cpu": cpu, "cores": torch.get_num_threads(), "torch": torch.__version__}
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        found = {"gpu": gpu.name, "gpu_gib": round(gpu.total_memory / 2**30), **found}
        found["cuda"] = torch.version.cuda
    return found


def collect(directory: Path, device: str) -> dict:
    """Read the parts in a directory, in the order in which they ran."""
    parts = {}
    for run in sorted(directory.glob("*.run"), key=lambda path: path.stat().st_mtime_ns):
        about = dict(line.split(" ", 1) for line in run.read_text().splitlines())
        figures, page = run.with_suffix(".json"), run.with_suffix(".md")
        parts[run.stem] = {
            "status": STATUS.get(about["status"], f"failed with status {about['status']}"),
            "seconds": int(about["seconds"]),
            "command": about["command"],
            "page": page.read_text() if page.is_file() else "",
            "figures": json.loads(figures.read_text()) if figures.is_file() else None,
        }
    return {"machine": machine(device), "parts": parts}


def show(result: dict) -> str:
    """Return a machine's page in Markdown."""
    about = result["machine"]
    lines = [f"# {about.get('gpu', about['cpu'])}", ""]
    lines += [", ".join(f"{name} {value}" for name, value in about.items()), ""]
    for name, part in result["parts"].items():
        lines += [f"## {name}: {part['status']}, {part['seconds']} s", ""]
        lines += [f"    {part['command']}", "", part["page"].strip(), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("collect", help="make one file of a machine's parts")
    action.add_argument("directory", type=Path)
    action.add_argument("out", type=Path, help="MACHINE.json; MACHINE.md is written beside it")
    action.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    action = actions.add_parser("show", help="print pages")
    action.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    if args.action == "show":
        print("\n".join(show(json.loads(file.read_text())) for file in args.files))
        return
    result = collect(args.directory, args.device)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    args.out.with_suffix(".md").write_text(show(result))


if __name__ == "__main__":
    main()
