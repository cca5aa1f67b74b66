from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

from tritonkit_client._protocol.tensors import DTYPES, datatype_of, decode, encode

TEXTS = [b"", b"a", "größe".encode(), bytes(300)]


@pytest.mark.parametrize("datatype", DTYPES)
def test_datatypes_are_those_of_tritonclient_both_ways(datatype: str) -> None:
    assert DTYPES[datatype] == np.dtype(triton_to_np_dtype(datatype))
    assert datatype_of(DTYPES[datatype]) == datatype


def test_types_that_triton_does_not_have_keep_numpys_name() -> None:
    assert datatype_of(np.dtype("complex64")) == "complex64"
    assert datatype_of(np.dtype("U5")) == "BYTES"
    assert datatype_of(np.dtype(">f4")) == "FP32"


def test_a_contiguous_array_is_encoded_without_a_copy() -> None:
    for array in (np.ones((2, 3), np.float32), np.ones((2, 3), ml_dtypes.bfloat16), np.ones(3, bool)):
        assert np.shares_memory(np.frombuffer(encode(array, datatype_of(array.dtype)), np.uint8), array)


def test_scalars_and_empty_arrays_have_bytes_too() -> None:
    assert bytes(encode(np.array(1, np.int16), "INT16")) == b"\1\0"
    assert bytes(encode(np.empty((0, 3), np.float32), "FP32")) == b""
    assert bytes(encode(np.empty((0,), object), "BYTES")) == b""


def test_strings_are_written_as_tritonclient_writes_them() -> None:
    texts = np.array([TEXTS], dtype=object)
    assert encode(texts, "BYTES") == serialize_byte_tensor(texts).item()


def test_strings_are_read_as_tritonclient_reads_them() -> None:
    data = serialize_byte_tensor(np.array([TEXTS], dtype=object)).item()
    decoded = decode(memoryview(data), "BYTES", (2, 2))
    assert decoded.shape == (2, 2)
    assert decoded.reshape(-1).tolist() == deserialize_bytes_tensor(data).tolist() == TEXTS
    assert all(type(item) is bytes for item in decoded.flat)


def test_numbers_are_decoded_as_a_read_only_view() -> None:
    data = np.arange(6, dtype=np.float32).tobytes()
    decoded = decode(data, "FP32", (2, 3))
    assert np.shares_memory(decoded, np.frombuffer(data, np.uint8))
    assert not decoded.flags.writeable


def test_bytes_in_the_wrong_place_are_decoded_to_an_aligned_copy() -> None:
    data = b"!" + np.arange(6, dtype=np.float64).tobytes()
    decoded = decode(memoryview(data)[1:], "FP64", (6,))
    assert decoded.flags.aligned
    assert not decoded.flags.writeable
    assert decoded.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_a_cut_off_string_tensor_is_refused(cut: int) -> None:
    data = bytes(encode(np.array([b"a", b"bcd"], object), "BYTES"))
    with pytest.raises(ValueError, match="ends inside an element"):
        decode(data[:-cut], "BYTES", (2,))


def test_bytes_that_do_not_fill_the_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        decode(bytes(8), "FP32", (3,))
