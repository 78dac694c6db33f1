"""Layers of base models compiled by ``torch.compile``, where that is wanted: in training."""

import types
from collections.abc import Callable, Iterable

import torch
from torch import nn


def compile_layers(layers: Iterable[nn.Module], *, when: Callable[[], bool]) -> None:
    """Compile the forward pass of layers in place; names in the state dict stay.

    One layer is compiled for all of its class, which takes seconds where a whole LLM takes minutes.
    Lengths are symbols: batches of another length are not compiled anew.

    Args:
        layers: to compile.
        when: the compiled code runs while this is true, the plain one otherwise, as in decoding,
            where caches and changing masks would have it compiled again and again.
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
