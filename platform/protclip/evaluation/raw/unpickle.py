"""Pickles of official files, read without running what is in them.

A pickle is a program. Here it can build plain containers and plain numpy arrays, and nothing else: every
name it looks up is either refused or answered by a function of this module that checks its arguments.
"""

import io
import pickle
import pickletools
import re
import sys
from typing import Any

import numpy as np

from protclip.errors import BenchmarkError

_PLAIN_DTYPE = re.compile(r"(?:b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})")
_ARRAYS = {"numpy.core.multiarray", "numpy._core.multiarray"}
_BUFFERS = {"numpy.core.numeric", "numpy._core.numeric"}
_BUILTINS = {"builtins", "__builtin__"}

_BROKEN = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError),
    *(OverflowError, MemoryError, RecursionError, NotImplementedError, AssertionError),
)
"""What the interpreter raises on bytes that are no pickle, by the documentation of `pickle`."""


def loads(data: bytes, source: str) -> object:
    """The value of a pickle of dict, list, tuple, set, str, bytes, int, float, bool, None and numpy arrays.

    Arrays and scalars are of numbers, booleans or fixed-width text; the arrays may come as a subclass of
    `np.ndarray`.

    Args:
        data: The pickle, of any protocol.
        source: Where it comes from, for messages.

    Raises:
        BenchmarkError: It asks for something else, which is named and was not executed, or is damaged.
    """
    try:
        _check_sizes(data)
        return _Unpickler(data, source).load()
    except BenchmarkError:
        raise
    except _BROKEN as error:
        raise BenchmarkError(
            f"{source}: the pickle cannot be read: {error or type(error).__name__}"
        ) from error


def _check_sizes(data: bytes) -> None:
    """Refuses sizes and numbers that the interpreter would provide memory for before it reads on."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in {"PUT", "LONG_BINPUT"} and (argument or 0) > len(data):
            raise ValueError(f"a pickle of {len(data):,} bytes with a memo of {argument:,}")


class _Dtype:
    """A numpy dtype to be: checked, then known to numpy."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        if not (isinstance(code, str) and _PLAIN_DTYPE.fullmatch(code)):
            raise ValueError(f"arrays of dtype {code!r} are not read")
        self.code = code
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        """Takes the byte order; a state that describes fields or objects is refused."""
        _, order, *parts = state
        if order not in {"<", ">", "=", "|"} or parts[:3] != [None, None, None]:
            raise ValueError(f"arrays of dtype {self.code!r} with state {state!r} are not read")
        self.order = order

    def values(self, content: bytes) -> np.ndarray:
        """The elements that these bytes are."""
        found = np.frombuffer(content, self.known)
        if self.code[0] == "U" and found.view(found.dtype.str[0] + "u4").max(initial=0) > sys.maxunicode:
            raise ValueError("an array with a text that is none")
        return found

    @property
    def known(self) -> np.dtype[Any]:
        """What numpy calls it."""
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # pyright: ignore


class _Array(np.ndarray):
    """An array that a pickle fills."""

    def __setstate__(self, state: Any, /) -> None:
        """Takes shape, dtype and bytes."""
        version, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise ValueError("an array without plain dtype and content")
        dtype.values(content)
        super().__setstate__((version, shape, dtype.known, is_fortran, content))


class _Unpickler(pickle.Unpickler):
    """Answers lookups itself. Bound methods are given out because a pickle cannot set attributes on them."""

    def __init__(self, data: bytes, source: str) -> None:
        super().__init__(io.BytesIO(data))
        self._source = source

    def find_class(self, module: str, name: str, /) -> Any:
        """The stand-in for a name, if there is one."""
        if module in _BUILTINS and name in {"set", "frozenset"}:
            return set if name == "set" else frozenset
        if module in _BUILTINS and name == "bytes":
            return self._no_bytes
        if (module, name) == ("_codecs", "encode"):
            return self._latin1
        if (module, name) == ("numpy", "dtype"):
            return self._dtype
        if (module, name) == ("numpy", "ndarray"):
            return None
        if module in _ARRAYS and name == "_reconstruct":
            return self._empty
        if module in _ARRAYS and name == "scalar":
            return self._scalar
        if module in _BUFFERS and name == "_frombuffer":
            return self._from_buffer
        if module.partition(".")[0] == "pandas":
            raise BenchmarkError(
                f"{self._source}: a pickled pandas object ({module}.{name}), which is not read because it "
                "could run anything; write the table as CSV or as a dictionary of lists"
            )
        raise BenchmarkError(
            f"{self._source}: the pickle asks for {module}.{name}; only plain containers and numpy arrays "
            "are read and nothing was executed. If this is the official file, report it, else fetch it anew"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Refuses objects that lie elsewhere, tensors for example."""
        raise BenchmarkError(f"{self._source}: the pickle refers to something outside of it ({pid!r})")

    def _no_bytes(self) -> bytes:
        """How old protocols write empty bytes."""
        return b""

    def _latin1(self, text: str, encoding: str) -> bytes:
        """How old protocols write bytes."""
        if encoding != "latin1":
            raise ValueError(f"bytes in encoding {encoding!r}")
        return text.encode("latin1")

    def _dtype(self, code: object, _align: object = False, _copy: object = True) -> _Dtype:
        return _Dtype(code)

    def _empty(self, _class: object, _shape: object, _code: object) -> _Array:
        """The array to be filled."""
        return _Array((0,))

    def _scalar(self, dtype: _Dtype, content: bytes) -> Any:
        (value,) = dtype.values(content)
        return value

    def _from_buffer(self, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
        return dtype.values(content).reshape(shape, order=order)  # pyright: ignore
