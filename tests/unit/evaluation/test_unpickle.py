import contextlib
import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protclip.errors import BenchmarkError
from protclip.evaluation.raw.unpickle import loads

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
) | st.sets(st.integers())
DTYPES = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes(sizes=(16, 32, 64))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Filled:
    """Pickles as an array whose state is given."""

    def __init__(self, *state: object) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, *self.state)


@settings(max_examples=50, deadline=None)
@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_loads_gives_plain_values_back(value: object, protocol: int) -> None:
    assert loads(pickle.dumps(value, protocol), "file") == value


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(DTYPES, hnp.array_shapes(min_side=0)), st.sampled_from(PROTOCOLS), st.booleans())
def test_loads_gives_arrays_back(array: np.ndarray, protocol: int, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    found = loads(pickle.dumps({"x": array}, protocol), "file")
    assert isinstance(found, dict)
    np.testing.assert_array_equal(found["x"], array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_loads_gives_numpy_scalars_and_text_back(protocol: int) -> None:
    value = [np.float32(1.5), np.int64(-3), np.bool_(True), np.array(["ab", "c"]), np.array([b"x"]), {1, 2}]
    found = loads(pickle.dumps(value, protocol), "file")
    assert isinstance(found, list)
    assert found[:3] == value[:3]
    assert found[3].tolist() == ["ab", "c"]
    assert found[4].tolist() == [b"x"]
    assert found[5] == {1, 2}


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Call(os.system, "touch ran"), r"(posix|nt)\.system"),
        (Call(eval, "open('ran', 'w')"), r"eval"),
        ({"deep": [({"er": Call(exec, "open('ran', 'w')")},)]}, r"exec"),
        (Call(getattr, "text", "join"), r"getattr"),
        (Call(np.load, "ran"), r"numpy.*load"),
        (Call(np.fromfile, "ran"), r"numpy.*fromfile"),
        (OrderedDict(a=1), r"collections\.OrderedDict"),
        (np.float64, r"numpy\.float64"),
        (range(3), r"(range|xrange)"),
    ],
)
def test_loads_refuses_and_names_all_else(
    value: object, named: str, protocol: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchmarkError, match=rf"file: the pickle asks for .*{named}; .*nothing was"):
        loads(pickle.dumps(value, protocol), "file")
    assert not list(tmp_path.iterdir())


def test_loads_refuses_names_with_dots_and_registered_extensions() -> None:
    inner = b"cnumpy\nndarray.__class__\n."
    with pytest.raises(BenchmarkError, match=r"numpy\.ndarray\.__class__"):
        loads(inner, "file")
    with pytest.raises(BenchmarkError, match="unregistered extension"):
        loads(b"\x82\x01.", "file")


def test_loads_refuses_pandas_and_tells_what_to_do() -> None:
    pickled = b"\x80\x04cpandas.core.frame\nDataFrame\n."
    with pytest.raises(BenchmarkError, match=r"pandas\.core\.frame\.DataFrame.*write the table as CSV"):
        loads(pickled, "emb.pkl")


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.array([{}, 1], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.dtype("O"),
        Filled((1,), np.dtype("i8"), False, [1]),
        Filled((2**40,), np.dtype("i8"), False, b"12345678"),
        Filled((1,), "i8", False, b"12345678"),
        Call(np._core.multiarray.scalar, np.dtype("f8"), b"123"),
    ],
    ids=["objects", "object field", "dates", "dtype", "list", "short", "no dtype", "scalar"],
)
def test_loads_refuses_arrays_that_are_not_plain(value: object, protocol: int) -> None:
    with pytest.raises(BenchmarkError, match="cannot be read"):
        loads(pickle.dumps(value, protocol), "file")


def test_loads_provides_no_memory_for_what_is_not_there() -> None:
    for bomb in (b"Nr\xff\xff\xff\xff.", b"Np4000000000\n.", b"\x96" + (2**36).to_bytes(8, "little") + b"."):
        with pytest.raises(BenchmarkError, match=r"a memo of|expected 68719476736 bytes"):
            loads(bomb, "file")


def test_loads_refuses_text_that_is_none() -> None:
    # From protocol 3 on the bytes of an array stand in the pickle as they are.
    for protocol in PROTOCOLS[3:]:
        broken = pickle.dumps(np.array(["ab"]), protocol).replace(b"a\0\0\0b\0\0\0", b"\x7f" * 8)
        with pytest.raises(BenchmarkError, match="a text that is none"):
            loads(broken, "file")


def test_loads_cannot_be_made_to_change_its_own_functions() -> None:
    # BUILD sets attributes of what was looked up: of a function its defaults, of a class its methods.
    for name in (b"c_codecs\nencode\n", b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\nscalar\n"):
        with pytest.raises(BenchmarkError):
            loads(name + b"(N}X\x0c\x00\x00\x00__defaults__(K\x01tstb.", "file")
    assert loads(pickle.dumps(np.float64(1), 2), "file") == 1


def load_or_be_told(data: bytes) -> None:
    """Fails on any other exception."""
    with contextlib.suppress(BenchmarkError):
        loads(data, "file")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_loads_gives_a_value_or_says_what_is_wrong(data: bytes) -> None:
    load_or_be_told(data)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_loads_stands_any_damage(data: st.DataObject) -> None:
    value = {"primary": "MKV", "x": np.arange(3.0), "y": np.float64(1)}
    pickled = bytearray(pickle.dumps(value, data.draw(st.sampled_from(PROTOCOLS))))
    pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    load_or_be_told(bytes(pickled))
