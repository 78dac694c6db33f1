"""Compiles the layers of base models with ``torch.compile``."""

import types
from collections.abc import Callable, Iterable

import torch
from torch import nn


def compile_layers(layers: Iterable[nn.Module], *, when: Callable[[], bool]) -> None:
    """Compile the forward pass of layers in place, without changing names in the state dict.

    Each layer class is compiled once, which takes seconds where a whole LLM takes minutes.
    Lengths are dynamic: batches of other lengths trigger no recompilation.

    Args:
        layers: the layers to compile.
        when: the compiled code runs while this returns true, and the plain code otherwise, as in
            decoding, where caches and changing masks would cause repeated recompilation.
    """
    compiled = {}
    for layer in layers:
        plain = layer.forward.__func__
        if plain not in compiled:
            compiled[plain] = torch.compile(plain, dynamic=True)
        layer.forward = types.MethodType(_switched(compiled[plain], plain, when), layer)


def _switched(compiled: Callable, plain: Callable, when: Callable[[], bool]) -> Callable:
    def forward(self: nn.Module, *args, **kwargs):
        return (compiled if when() else plain)(self, *args, **kwargs)

    return forward
