"""Time and memory of expert dispatch against a dense MLP of the same active work.

    python benchmarks/projector.py                                   # CPU, float32, 2 threads
    python benchmarks/projector.py --device cuda --precision bf16 --json projector.json

A layer routes tokens of width 1024 to 2 of N experts 1024 → 2048 → 2048; router and sums
included. Contenders are interleaved in one process, and each figure is the median over rounds of
the ratio to the dense MLP (1024 → 2 · 2048 → 2048) of the same round, so that other work on the
machine affects both. `loop` is the algorithm of published code: each expert selects its tokens by a
one-hot mask and adds its outputs by index.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import timing
import torch
from public_experts import Loop, mlp
from torch import nn

from espnet_smop.projector.dispatch import DISPATCHES, choose, mix
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.router import Router

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "amp": torch.float32}


class SMoP(nn.Module):
    """Router and pool of the package under one dispatch."""

    def __init__(self, router: Router, pool: ExpertPool, how: str):
        super().__init__()
        self.router, self.pool, self.how = router, pool, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``(M, D)`` to ``(M, E)``."""
        return mix(self.pool, x, self.router(x), how=self.how)


def contenders(args: argparse.Namespace, num_experts: int, tokens: int) -> dict[str, nn.Module]:
    router = Router(input_size=args.width, num_experts=num_experts, top_k=args.top_k)
    pool = ExpertPool(
        input_size=args.width,
        hidden_size=args.hidden,
        output_size=args.output,
        num_experts=num_experts,
        layer_norm=args.layer_norm,
    )
    models = {
        "mlp": mlp(args.width, args.top_k * args.hidden, args.output, args.layer_norm),
        "loop": Loop(args, num_experts),
    }
    for how in (*DISPATCHES, "auto"):
        if how != "dense" or args.device == "cuda" or num_experts * tokens <= args.max_dense_rows:
            models[how] = SMoP(router, pool, how)
    return {
        name: model.to(args.device, PRECISIONS[args.precision])
        for name, model in models.items()
        if name in ("mlp", "loop", *args.only)
    }


def step(
    model: nn.Module, x: torch.Tensor, grad: torch.Tensor, args: argparse.Namespace, backward: bool
) -> Callable[[], None]:
    autocast = torch.autocast(args.device, torch.bfloat16)

    def run() -> None:
        with autocast if args.precision == "amp" else nullcontext():
            if not backward:
                with torch.no_grad():
                    model(x)
                return
            y = model(x)
        y.backward(grad.to(y.dtype))
        x.grad = None
        model.zero_grad()

    return run


def measure(run: Callable[[], None], args: argparse.Namespace) -> float:
    """Return milliseconds per run."""
    clock = timing.now if args.clock == "process" or args.device == "cuda" else _wall
    start = clock(args.device)
    for _ in range(args.inner):
        run()
    return (clock(args.device) - start) / args.inner * 1e3


def _wall(device: str) -> float:
    return time.perf_counter()


def compare(args: argparse.Namespace, num_experts: int, tokens: int) -> dict:
    torch.manual_seed(0)
    dtype = PRECISIONS[args.precision]
    x = torch.randn(tokens, args.width, device=args.device, dtype=dtype, requires_grad=True)
    grad = torch.randn(tokens, args.output, device=args.device, dtype=dtype)
    models = contenders(args, num_experts, tokens)
    result = {
        "experts": num_experts,
        "tokens": tokens,
        "auto": choose(models["auto"].pool.stacked(dtype)) if "auto" in models else "–",
    }
    for name, backward in (("forward", False), ("training", True)):
        runs = {m: step(model, x, grad, args, backward) for m, model in models.items()}
        for run in runs.values():
            for _ in range(args.warmup):
                run()
        times = {m: [] for m in runs}
        for _ in range(args.rounds):
            for m, run in runs.items():
                times[m].append(measure(run, args))
        result[name] = {
            m: {
                "ms": statistics.median(ts),
                "ratio": statistics.median(t / d for t, d in zip(ts, times["mlp"], strict=True)),
            }
            for m, ts in times.items()
        }
    result["memory"] = {m: timing.peak_memory(run, args.device) for m, run in runs.items()}
    return result


def table(results: list[dict], key: str, columns: list[str]) -> str:
    """Return a Markdown table of one quantity."""
    rows = []
    for r in results:
        if key == "memory":
            first = f"{r[key]['mlp']:.0f} MiB"
            ratios = {c: value / r[key]["loop"] for c, value in r[key].items()}
        else:
            first = f"{r[key]['mlp']['ms']:.2f} ms"
            ratios = {c: value["ratio"] for c, value in r[key].items()}
        cells = (f"{ratios[c]:.2f}" if c in ratios else "–" for c in columns)
        rows.append([str(r["experts"]), str(r["tokens"]), first, *cells, r["auto"]])
    return timing.markdown(["N", "tokens", "mlp", *columns, "auto is"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--precision", default="fp32", choices=PRECISIONS, help="amp: autocast to bf16"
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 512, 4096, 16384])
    parser.add_argument("--experts", type=int, nargs="+", default=[3, 4, 8, 16])
    parser.add_argument("--top_k", type=int, default=2)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--output", type=int, default=2048)
    parser.add_argument("--layer_norm", action="store_true", help="in the experts and in the MLP")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--inner", type=int, help="runs per measurement (CPU 1, GPU 10)")
    parser.add_argument("--warmup", type=int, help="runs before (CPU 1, GPU 10)")
    parser.add_argument("--clock", default="wall", choices=["wall", "process"])
    parser.add_argument("--max_dense_rows", type=int, default=32768, help="N · tokens, on a CPU")
    parser.add_argument("--only", nargs="+", default=[*DISPATCHES, "auto"])
    timing.add_options(parser)
    args = timing.parsed(parser)
    many = 10 if args.device == "cuda" else 1
    args.inner, args.warmup = args.inner or many, args.warmup or many
    torch.set_num_threads(args.threads)

    machine = platform.processor() or platform.machine()
    if args.device == "cuda":
        machine = torch.cuda.get_device_name()
    head = f"{machine}, {args.precision}, torch {torch.__version__}, K = {args.top_k}"
    print(f"{head}, {args.rounds} rounds{', LayerNorm' * args.layer_norm}\n")
    results = []
    columns = ["loop", *args.only]
    for num_experts in args.experts:
        for tokens in args.tokens:
            if results and args.deadline.passed():
                break
            results.append(compare(args, num_experts, tokens))
            print(table(results[-1:], "training", columns).splitlines()[-1], flush=True)
    for key, title in (
        ("forward", "Forward: time relative to the MLP"),
        ("training", "Forward and backward: time relative to the MLP"),
        ("memory", "Peak memory of forward and backward, relative to the loop"),
    ):
        print(f"\n{title}\n\n{table(results, key, columns)}")
    timing.save(args, {"machine": head, "results": results})


if __name__ == "__main__":
    main()
