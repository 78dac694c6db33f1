"""Pickles of numpy arrays, read without their classes and without numpy's own constructors.

Those constructors trust their input: a damaged or malicious file crashes the process. Here a pickle
can only describe its arrays by bytes, shape and type. The descriptions are checked, and turned into
arrays when the whole file has been read.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_NUMBERS = re.compile(r"[biuf][1248]|f16")
_MAX_DEPTH = 8
_MAX_ITEMS = 10**7
"""In all lists together: a few nested references could otherwise expand beyond the memory."""


class _Type:
    """Stand-in for ``numpy.dtype``: its type code, and the byte order from its state."""

    def __init__(self, code: Any = None, *_: Any):
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def make(self) -> np.dtype:
        code = self.code
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise pickle.UnpicklingError(f"an array of type {code!s:.20}, not of numbers")
        return np.dtype(code).newbyteorder({"|": "="}.get(self.order, self.order))

    @property
    def is_object(self) -> bool:
        return self.code == "O8"


class _Array:
    """Stand-in for an array, which is pickled as an empty one plus its state."""

    def __init__(self, *_: Any):
        self.shape, self.type, self.fortran, self.data = (), None, False, b""
        self.axes: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.type, self.fortran, self.data = state

    @classmethod
    def of_buffer(
        cls, data: Any, of_type: Any, shape: Any, order: Any, axes: Any = None
    ) -> "_Array":
        """Stand in for protocol 5's constructor; ``axes``: of an array in neither C nor F order."""
        array = cls()
        array.axes = axes
        array.data, array.type, array.shape, array.fortran = data, of_type, shape, order == "F"
        return array

    @classmethod
    def of_scalar(cls, of_type: Any, data: Any = b"") -> "_Array":
        """Stand in for the constructor of a numpy scalar."""
        return cls.of_buffer(data, of_type, (), "C")

    def make(self, made: Callable[[Any], Any]) -> Any:
        shape, of_type = self.shape, self.type
        valid = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not isinstance(of_type, _Type) or not valid or len(shape) > 4:
            raise pickle.UnpicklingError("an array without a type and a shape")
        if of_type.is_object:
            if not isinstance(self.data, list) or len(self.data) != math.prod(shape):
                raise pickle.UnpicklingError(
                    "an array with more or fewer items than its shape says"
                )
            return made(self.data)
        if isinstance(self.data, str):
            self.data = _latin1(self.data)
        dtype = of_type.make()
        if not isinstance(self.data, bytes | bytearray):
            raise pickle.UnpicklingError("an array without content")
        if len(self.data) != dtype.itemsize * math.prod(shape):
            raise pickle.UnpicklingError("an array with more or fewer bytes than its shape says")
        array = np.frombuffer(bytes(self.data), dtype)
        array = array.reshape(shape, order="F" if self.fortran else "C")
        return array if self.axes is None else array.transpose(self.axes)


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    # How protocol 2 writes an array's bytes; other codecs (zlib, …) have no business here.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!s:.20} is not allowed")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    # How protocol 2 writes no bytes at all.
    return b""


_STAND_INS = {
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _latin1,
    # numpy 1 wrote `numpy.core`, numpy 2 writes `numpy._core`.
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Array.of_scalar),
            ("numeric", "_frombuffer", _Array.of_buffer),
        )
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, not an array") from None


def load(file: io.BufferedIOBase) -> Any:
    """Read a pickle of arrays, numbers, None, and lists and tuples of these.

    Tuples become lists, and so do arrays of objects, which are flattened.

    Raises:
        pickle.UnpicklingError: it names another class or holds something else. A damaged pickle
            may raise other exceptions as well.
    """
    return _Maker().make(_ArrayUnpickler(file, encoding="latin1").load())


class _Maker:
    """Replaces stand-ins with arrays."""

    def __init__(self):
        self.items = 0

    def make(self, content: Any, depth: int = 0) -> Any:
        self.items += 1
        if depth > _MAX_DEPTH or self.items > _MAX_ITEMS:
            raise pickle.UnpicklingError("it is too deeply nested or has too many items")
        if isinstance(content, _Array):
            return content.make(lambda items: self.make(items, depth + 1))
        if isinstance(content, list | tuple):
            return [self.make(item, depth + 1) for item in content]
        if content is None or isinstance(content, bool | int | float):
            return content
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__:.40}, not an array")
