"""A stand-in for a GPU: tensors that say they are on one, and are computed on the CPU.

An operation on tensors of both devices fails as on a GPU, and what makes the host wait for the
device is noted. Only for what Python sees: kernels, the backward pass and `torch.cuda` are not.
"""

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

_GPU = torch.device("cuda:0")
_WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"}
_FROM_PYTHON = (torch.tensor, torch.as_tensor)

waits: Counter[str] = Counter()
"""Where the host waited for the device → how often; cleared by ``gpu``."""


class OnGPU(torch.Tensor):
    """A tensor on the stand-in."""

    def __new__(cls, there: torch.Tensor, requires_grad: bool = False):
        """Say that a tensor is on the GPU."""
        # To PyTorch's core it is on the CPU, which it would ask for the driver otherwise.
        return torch.Tensor._make_wrapper_subclass(
            cls, there.size(), strides=there.stride(), storage_offset=there.storage_offset(),
            dtype=there.dtype, device="cpu", requires_grad=requires_grad,
        )  # fmt: skip

    def __init__(self, there: torch.Tensor, requires_grad: bool = False):
        self.there = there

    device = property(lambda self: _GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Run an operation."""
        return _run(func, args, kwargs or {})

    def to(self, *args, **kwargs):
        """Convert, or copy to the CPU."""
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is None or device.type == "cuda":
            return self if dtype is None else super().to(dtype=dtype)
        return _waited(self.there.to(dtype, copy=True))

    def cpu(self):
        """Copy to the CPU."""
        return self.to("cpu")

    def tolist(self):
        """Copy to the CPU."""
        return _waited(self.there.tolist())

    def numpy(self, **_):
        """Fail."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy


def _waited(value: Any) -> Any:
    """Note that the host got a value from the device."""
    stack = traceback.extract_stack()
    calls = (f for f in reversed(stack) if "/torch/" not in f.filename and f.filename != __file__)
    call = next(calls)
    waits[f"{call.filename.rsplit('/', 1)[-1]}:{call.lineno} {call.line}"] += 1
    return value


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """Run an operation on the CPU, whose results are where a GPU's would be."""
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    name, device = func._schema.name, kwargs.get("device")
    there = [t for t in given if isinstance(t, OnGPU)]
    here = [t for t in given if not isinstance(t, OnGPU)]
    index = name.startswith("aten::index") and "Tensor" in func._schema.overload_name
    copies = name in ("aten::copy_", "aten::_to_copy")
    # Numbers may be on the CPU, and so may indices.
    if there and any(t.ndim for t in here) and not (copies or index):
        raise RuntimeError(f"{func}: tensors of cuda:0 and of the cpu")
    if there and (name in _WAITING or (index and any(t.dtype == torch.bool for t in there[1:]))):
        _waited(None)
    on_gpu = bool(there) if device is None else torch.device(device).type == "cuda"
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map_only(OnGPU, lambda t: t.there, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    # What is changed in place stays the same tensor.
    known = {id(t.there): t for t in there}
    wrap = OnGPU if on_gpu else lambda t: t
    return tree_map_only(torch.Tensor, lambda t: known[id(t)] if id(t) in known else wrap(t), out)


class _Operations(TorchDispatchMode):
    """Makes tensors on the stand-in where they are asked for on ``cuda``."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Does what PyTorch's core would do without asking where Python says that a tensor is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnGPU):
            return OnGPU(torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)))
        if func in _FROM_PYTHON and kwargs.get("device") is not None:
            on_gpu = torch.device(kwargs.pop("device")).type == "cuda"
            made = func(*args, **kwargs)
            return OnGPU(made) if on_gpu else made
        if func is torch._C._nn.pad_sequence and isinstance(args[0][0], OnGPU):
            longest = max(map(len, args[0]))
            pads = (x.new_zeros(longest - len(x), *x.shape[1:]) for x in args[0])
            return torch.stack([torch.cat(pair) for pair in zip(args[0], pads, strict=True)])
        return func(*args, **kwargs)


@contextlib.contextmanager
def gpu(*, autocast: bool = False, capability: int = 9) -> Iterator[None]:
    """Have a GPU of a major compute capability; with ``autocast`` in bfloat16.

    Autocast itself is that of the CPU, where the operations run.
    """
    waits.clear()
    autocasts = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype

    class Autocast(autocasts[0]):
        def __init__(self, device_type, *args, **kwargs):
            super().__init__("cpu", *args, **kwargs)

    with (
        mock.patch("torch.cuda._lazy_init"),
        mock.patch("torch.cuda.get_device_capability", lambda *_: (capability, 0)),
        mock.patch("torch.autocast", Autocast),
        mock.patch("torch.is_autocast_enabled", lambda _: autocasts[1]("cpu")),
        mock.patch("torch.get_autocast_dtype", lambda _: autocasts[2]("cpu")),
        _Functions(),
        _Operations(),
        torch.autocast("cuda", torch.bfloat16, enabled=autocast),
    ):
        yield


def move(module: nn.Module) -> nn.Module:
    """Put a module's parameters and buffers on the stand-in, in place; tied ones stay tied."""
    moved = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    there = OnGPU(tensor.detach())
                    if isinstance(tensor, nn.Parameter):
                        there = nn.Parameter(there, requires_grad=tensor.requires_grad)
                    moved[id(tensor)] = there
                tensors[name] = moved[id(tensor)]
    return module
