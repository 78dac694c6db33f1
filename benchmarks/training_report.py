"""The tables that train.py prints."""

import timing


def report(result: dict) -> str:
    """Return the figures of `train.measure` as Markdown tables."""
    header = ["", "utterances/s", "speech s/s", "LLM tokens/s", "speed", "peak MiB", "memory"]
    rows = [
        [
            name, f"{r['utterances_per_second']:.2f}", f"{r['speech_per_second']:.1f}",
            f"{r['tokens_per_second']:.0f}", f"{r['speed']:.2f}", f"{r['peak_mib']:.0f}",
            f"{r['memory']:.2f}", f"{100 * r['share_of_matrix_peak']:.0f} %",
        ]
        for name, r in result["rows"].items()
    ]  # fmt: skip
    lines = [timing.markdown([*header, "matrix peak"], rows), ""]
    lines += [
        f"computed for bfloat16, activations of the batch whose peak is measured: "
        f"{result['computed_mib']:.0f} MiB",
        "",
    ]
    parts = list(result["split"]["ours"])
    rows = [
        [name, *(f"{100 * shares[part]:.0f}" for part in parts)]
        for name, shares in result["split"].items()
    ]
    lines += [timing.markdown(["share of time in %", *parts], rows), ""]
    if "growth" in result:
        rows = [
            [f"{seconds:g} s", f"{1e3 * r['seconds']:.1f}", f"{r['operations'] / 1e9:.2f}"]
            for seconds, r in result["growth"]["lengths"].items()
        ]
        slopes = (f"{result['growth'][name]:.2f}" for name in ("seconds", "operations"))
        header = ["utterances of", "ms per second of speech", "GFLOP per second of speech"]
        lines += [timing.markdown(header, [*rows, ["slope of the totals", *slopes]]), ""]
    for name, waste in result["waste"].items():
        lines.append(
            f"padding of the whole corpus, {name}: frames {100 * waste['frames']:.1f} %, "
            f"LLM tokens {100 * waste['tokens']:.1f} %"
        )
    return "\n".join(lines)
