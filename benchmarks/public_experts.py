"""Baselines of the projector benchmark: a dense MLP, and the algorithm of published code."""

import argparse

import torch
from torch import nn


def mlp(width: int, hidden: int, output: int, layer_norm: bool) -> nn.Sequential:
    layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, output)]
    return nn.Sequential(*layers, *([nn.LayerNorm(output)] if layer_norm else []))


class Loop(nn.Module):
    """The algorithm of published code."""

    def __init__(self, args: argparse.Namespace, num_experts: int):
        super().__init__()
        self.num_experts, self.top_k, self.output = num_experts, args.top_k, args.output
        self.gate = nn.Linear(args.width, num_experts, bias=False)
        self.experts = nn.ModuleList(
            mlp(args.width, args.hidden, args.output, args.layer_norm) for _ in range(num_experts)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``(M, D)`` to ``(M, E)``."""
        probs = self.gate(x).softmax(-1, dtype=torch.float32)
        weights, selected = probs.topk(self.top_k, dim=-1)
        weights = (weights / weights.sum(-1, keepdim=True)).to(x.dtype)
        out = torch.zeros(len(x), self.output, dtype=x.dtype, device=x.device)
        # (N, K, M)
        mask = nn.functional.one_hot(selected, self.num_experts).permute(2, 1, 0)
        for expert, chosen in zip(self.experts, mask, strict=True):
            choice, token = torch.where(chosen)
            y = expert(x[token]) * weights[token, choice, None]
            out.index_add_(0, token, y.to(x.dtype))
        return out
