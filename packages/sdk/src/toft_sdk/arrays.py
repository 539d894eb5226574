"""numpy arrays and scalars on the wire: type, shape and order in the header, the memory as a buffer.

Where numpy is missing, an array arrives as an `Array`: the same facts and bytes, sent on as an array.
"""

from __future__ import annotations

import sys

from toft_sdk.codec import TAG, Decoder, Encoder, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_KINDS = "biufcSUMm"


class Array:
    """An array where there is no numpy.

    Attributes:
        dtype: The type in numpy's notation, such as `<f4`.
        shape: Length of each dimension.
        is_fortran: Whether the first index changes fastest.
        data: The bytes.
    """

    def __init__(self, dtype: str, shape: tuple[int, ...], is_fortran: bool, data: bytearray) -> None:
        self.dtype = dtype
        self.shape = shape
        self.is_fortran = is_fortran
        self.data = data


def find_writer(kind: type) -> Callable[[Encoder, Any, int], Any]:
    """Return what writes values of a type that numpy defines."""
    np: Any = sys.modules["numpy"]
    if kind is np.ndarray or kind is np.memmap:
        return _write_array
    if issubclass(kind, np.generic):
        return _write_scalar
    raise Refused(f"numpy's {kind.__qualname__} cannot cross; use a plain numpy.ndarray")


def _check(dtype: Any) -> str:
    if dtype.kind not in _KINDS or dtype.hasobject or dtype.itemsize == 0:
        raise Refused(
            f"has the numpy type {dtype}, which is not made of plain numbers or text of fixed length"
        )
    return str(dtype.str)


def _write_array(coder: Encoder, value: Any, depth: int) -> Any:
    dtype = _check(value.dtype)
    np: Any = sys.modules["numpy"]
    value = np.asarray(value)
    is_fortran = bool(value.flags.f_contiguous and not value.flags.c_contiguous)
    tree = {TAG: "ndarray", "d": dtype, "s": list(value.shape), "b": coder.buffer(Source(value, is_fortran))}
    if is_fortran:
        tree["f"] = True
    return tree


def write_plain(coder: Encoder, value: Any, depth: int) -> Any:
    """Write an `Array` as an array."""
    tree = {TAG: "ndarray", "d": value.dtype, "s": list(value.shape), "b": coder.buffer(value.data)}
    if value.is_fortran:
        tree["f"] = True
    return tree


def _write_scalar(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "scalar", "d": _check(value.dtype), "v": value.tobytes().hex()}


class Source:
    """The memory of an array that is still to be copied, once, to where it travels."""

    __slots__ = ("_array", "nbytes")

    def __init__(self, array: Any, is_fortran: bool) -> None:
        self._array = array.T if is_fortran else array
        self.nbytes: int = array.nbytes

    def copy_into(self, target: memoryview) -> None:
        """Copy into a segment; numpy lets go of the interpreter lock for it."""
        np: Any = sys.modules["numpy"]
        np.copyto(
            np.frombuffer(target, self._array.dtype, self._array.size).reshape(self._array.shape), self._array
        )

    def to_bytes(self) -> bytes:
        """Return the bytes in the order in which they travel."""
        return bytes(self._array.tobytes())


def _dtype(np: Any, name: Any) -> Any:
    if type(name) is not str or len(name) > 40:
        raise ValueError("an array has no type")
    try:
        dtype = np.dtype(name)
    except SyntaxError:
        # numpy reads a text with a comma as a Python expression.
        raise ValueError(f"an array has the type {ascii(name)}") from None
    if dtype.kind not in _KINDS or dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"an array has the type {ascii(name)}")
    return dtype


def _shape(sizes: Any) -> tuple[int, ...]:
    if type(sizes) is not list or len(sizes) > 32 or any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError("an array has no shape")
    return tuple(sizes)


def _numpy() -> Any:
    try:
        import numpy  # noqa: PLC0415 - only for whom an array was sent
    except ImportError:
        return None
    return numpy


def read_array(coder: Decoder, tree: Any, depth: int) -> Any:
    np = _numpy()
    shape = _shape(tree["s"])
    is_fortran = tree.get("f") is True
    if np is None:
        return Array(str(tree["d"])[:40], shape, is_fortran, bytearray(coder.content(tree)))
    dtype = _dtype(np, tree["d"])
    data = coder.data(tree)
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != (data.size if hasattr(data, "is_taken") else len(data)):
        raise ValueError("an array does not fit its bytes")
    if count == 0:
        return np.empty(shape, dtype, order="F" if is_fortran else "C")
    # Either way the array is writable, and nobody else's.
    flat = data.array(np) if hasattr(data, "is_taken") else np.frombuffer(bytearray(data), np.uint8)
    typed = flat.view(dtype)
    return typed.reshape(shape[::-1]).T if is_fortran else typed.reshape(shape)


def read_scalar(coder: Decoder, tree: Any, depth: int) -> Any:
    np = _numpy()
    raw = bytes.fromhex(tree["v"])
    if np is None:
        return Array(str(tree["d"])[:40], (), False, bytearray(raw))
    dtype = _dtype(np, tree["d"])
    if len(raw) != dtype.itemsize:
        raise ValueError("a scalar does not fit its bytes")
    return np.frombuffer(raw, dtype)[0]
