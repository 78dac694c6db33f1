import io
import pickle

import numpy as np
import pytest

from espnet_smop.corpus import array_pickle


def load(data):
    return array_pickle.load(io.BytesIO(data))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", ">f4", "i4", ">i2", "u1", "?"])
def test_arrays_are_those_that_were_pickled(protocol, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for a in (array, array.transpose(2, 0, 1), array[:, ::2], array[:0], array[0, 0, 0]):
        got = load(pickle.dumps(a, protocol=protocol))
        assert got.dtype.kind == a.dtype.kind and got.shape == a.shape
        np.testing.assert_array_equal(got, a)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_lists_and_arrays_of_objects(protocol):
    points = np.ones((2, 2), np.float32)
    objects = np.empty(3, object)
    objects[:] = [points, None, 2 * points]
    for content in ([points, None, 2 * points], (points, None, 2 * points), objects):
        first, second, third = load(pickle.dumps(content, protocol=protocol))
        assert second is None
        np.testing.assert_array_equal(third, 2 * first)
    assert load(pickle.dumps([[1, 2.5], [True, None]], protocol)) == [[1, 2.5], [True, None]]


def rebuilt(shape, dtype, data):
    """Return a pickle of an array in whose state this stands."""

    class Claim:
        def __reduce__(self):
            reconstruct = np._core.multiarray._reconstruct
            return reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, data)

    return pickle.dumps(Claim())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rebuilt((4,), np.dtype("f4"), bytes(15)), "more or fewer bytes than its shape"),
        (rebuilt((2**62, 4), np.dtype("f4"), bytes(16)), "more or fewer bytes than its shape"),
        (rebuilt((-1,), np.dtype("f4"), bytes(4)), "without a type and a shape"),
        (rebuilt(4, np.dtype("f4"), bytes(16)), "without a type and a shape"),
        (rebuilt((4,), "f4", bytes(16)), "without a type and a shape"),
        (rebuilt((4,), np.dtype("f4"), 16), "without content"),
        (rebuilt((4,), np.dtype("O"), bytes(32)), "more or fewer items than its shape"),
        (rebuilt((2,), np.dtype("O"), [None]), "more or fewer items than its shape"),
        (rebuilt((4,), np.dtype("U2"), bytes(32)), "of type U2, not of numbers"),
        (rebuilt((4,), np.dtype("f4,i4"), bytes(32)), "of type V8, not of numbers"),
        (pickle.dumps({"a": 1}), "it holds a dict"),
        (pickle.dumps(np.dtype("f4")), "it holds a _Type"),
        (b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.", "codec zlib is not allowed"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        load(data)


def test_lists_that_hold_each_other_many_times_end():
    content = [None] * 100
    for _ in range(6):
        content = [content] * 100
    with pytest.raises(pickle.UnpicklingError, match="too many"):
        load(pickle.dumps(content))
    content.append(content)
    with pytest.raises(pickle.UnpicklingError, match="too many"):
        load(pickle.dumps(content))
