from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tritonkit_client import Client, InvalidInput, ModelMetadata, TensorSpec
from tritonkit_client._protocol.errors import Origin
from tritonkit_client._protocol.tensors import DTYPES, decode
from tritonkit_client._protocol.validation import check_outputs, encode_inputs

ORIGIN = Origin("grpc://models:8001", "m", "r1")


def model(datatype: str, *shape: int, max_batch_size: int = 0) -> ModelMetadata:
    """A model with a required input `x` and an optional one."""
    inputs = (TensorSpec("x", datatype, shape), TensorSpec("extra", "FP32", (1,), optional=True))
    return ModelMetadata("m", ("1",), "p", inputs, (TensorSpec("y", "FP32", (1,)),), max_batch_size)


def encoded(metadata: ModelMetadata, value: Any) -> np.ndarray[Any, Any]:
    """The array that the server gets for a value."""
    (tensor,) = encode_inputs(metadata, {"x": value}, ORIGIN)
    return decode(tensor.data, tensor.datatype, tensor.shape)


def refusal(metadata: ModelMetadata, value: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        encode_inputs(metadata, {"x": value}, ORIGIN)
    assert (caught.value.model, caught.value.request_id) == ("m", "r1")
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "datatype"),
    [
        (np.int8, "INT32"), (np.uint8, "INT16"), (np.float16, "FP32"), (np.int32, "FP64"), (np.bool_,
        "UINT8"), (ml_dtypes.bfloat16, "FP32"), (np.float32, "FP64"),
    ],
)  # fmt: skip
def test_safe_casts_are_made(given: Any, datatype: str) -> None:
    array = np.array([0, 1], given)
    seen = encoded(model(datatype, -1), array)
    assert seen.dtype == DTYPES[datatype]
    assert seen.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("given", "datatype", "words"),
    [
        (np.float64, "FP32", "given FP64 [2]"), (np.int64, "INT32", "given INT64 [2]"),
        (np.int32, "FP32", "given INT32 [2]"), (np.float32, "BF16", "x.astype(ml_dtypes.bfloat16)"),
        (np.uint8, "BOOL", "x.astype(bool)"), (np.float32, "FP16", "x.astype(np.float16)"),
        (np.complex64, "FP64", "given complex64 [2]"), ("U1", "INT8", "given BYTES [2]"),
        (object, "INT8", "given BYTES [2]"),
    ],
)  # fmt: skip
def test_casts_that_may_lose_something_are_refused(given: Any, datatype: str, words: str) -> None:
    message = refusal(model(datatype, -1), np.array([0, 1]).astype(given))
    assert f"input 'x' of model m: the type would lose information; expected {datatype} [-1]" in message
    assert words in message


@pytest.mark.parametrize(
    ("value", "datatype", "seen"),
    [
        ([1, 2], "INT8", [1, 2]), ([1, 2], "FP16", [1.0, 2.0]), ([0.1], "FP32", [np.float32(0.1)]),
        ([True], "BOOL", [True]), ([2**63], "UINT64", [2**63]), ([1.5, -2], "BF16", [1.5, -2]),
        ([float("inf")], "FP16", [float("inf")]), ([], "INT8", []), ((1,), "FP64", [1.0]), ([True], "INT8",
        [1]), ([np.int8(3), np.int8(4)], "INT32", [3, 4]), (["a", b"\xff"], "BYTES", [b"a", b"\xff"]), ([],
        "BYTES", []), (np.array(["ä", "b"]), "BYTES", ["ä".encode(), b"b"]), (np.array([b"a"]), "BYTES", [b"a"]),
    ],
)  # fmt: skip
def test_values_that_the_type_holds_are_accepted(value: Any, datatype: str, seen: list[Any]) -> None:
    assert encoded(model(datatype, -1), value).tolist() == seen


@pytest.mark.parametrize(
    ("value", "datatype", "words"),
    [
        ([128], "INT8", "do not fit the type"), ([-1], "UINT8", "do not fit the type"),
        ([1.0], "INT32", "do not fit the type"), ([1], "BOOL", "do not fit the type"),
        ([1e6], "FP16", "do not fit the type"), ([2**24 + 1], "FP32", "do not fit the type"),
        ([2**70], "INT64", "do not fit the type"), (["1"], "INT8", "do not fit the type"),
        ([None], "FP32", "do not fit the type"), ([[1], [2, 3]], "INT8", "different lengths"),
        ([np.array(0.1)], "FP32", "np.asarray(x).astype(np.float32)"), ([1], "BYTES", "an element is a int"),
        (np.array([1]), "BYTES", "the type is not text"), (["\ud800"], "BYTES", "not valid text"),
        (np.array([1], object), "BYTES", "an element is a int"), ([["a"], ["b", "c"]], "BYTES", "an element is a list"),
    ],
)  # fmt: skip
def test_values_that_the_type_does_not_hold_are_refused(value: Any, datatype: str, words: str) -> None:
    assert words in refusal(model(datatype, -1), value)


@pytest.mark.parametrize(
    ("value", "shape", "seen"),
    [
        (1.0, (-1, 1), (1, 1)), ("text", (-1,), (1,)), (b"text", (1, 1), (1, 1)), (["a", "b"], (-1, 1), (2,
        1)), ([1.0, 2.0], (-1, 1, 1), (2, 1, 1)), ([[1.0, 2.0]], (-1, 2), (1, 2)),
    ],
)  # fmt: skip
def test_plain_values_gain_the_dimensions_that_can_only_be_one(
    value: Any, shape: tuple[int, ...], seen: tuple[int, ...]
) -> None:
    datatype = "BYTES" if np.asarray(value).dtype.kind in "SU" else "FP32"
    assert encoded(model(datatype, *shape), value).shape == seen


@pytest.mark.parametrize(
    ("value", "shape", "words"),
    [
        (np.array(1, np.float32), (-1, 1), "its rank is 0, not 2"),
        (np.ones(3, np.float32), (-1, 3), "x[np.newaxis]"),
        (np.ones(4, np.float32), (-1, 3), "reshape it to 2 dimensions"),
        (np.ones((1, 2, 3), np.float32), (-1, 3), "given FP32 [1, 2, 3]"),
        (np.ones((2, 4), np.float32), (-1, 3), "dimension 1 is 4, not 3"),
        ([1.0, 2.0], (-1, 2), "its rank is 1, not 2"),
        (1.0, (2,), "its rank is 0, not 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(value: Any, shape: tuple[int, ...], words: str) -> None:
    message = refusal(model("FP32", *shape), value)
    assert words in message
    assert f"expected FP32 {list(shape)}" in message


@pytest.mark.parametrize("size", [0, 5])
def test_a_batch_must_be_within_the_limit(size: int) -> None:
    message = refusal(model("FP32", -1, 2, max_batch_size=4), np.ones((size, 2), np.float32))
    assert f"is a batch of {size}: expected 1 to 4" in message


def test_a_model_that_does_not_batch_has_no_batch_limit() -> None:
    assert encoded(model("FP32", -1, 2), np.ones((500, 2), np.float32)).shape == (500, 2)


def test_inputs_are_in_the_models_order_and_optional_ones_may_be_missing() -> None:
    value = np.ones(1, np.float32)
    both = encode_inputs(model("FP32", -1), {"extra": value, "x": value}, ORIGIN)
    assert [tensor.name for tensor in both] == ["x", "extra"]
    with pytest.raises(InvalidInput, match=r"needs input 'x': expected FP32 \[-1\], given nothing"):
        encode_inputs(model("FP32", -1), {"extra": value}, ORIGIN)


def test_an_unknown_input_is_answered_with_the_nearest_name_or_all_of_them() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'extra'"):
        encode_inputs(model("FP32", -1), {"x": [1.0], "extar": 1.0}, ORIGIN)
    with pytest.raises(InvalidInput, match="it has x, extra"):
        encode_inputs(model("FP32", -1), {"x": [1.0], "zzz": 1.0}, ORIGIN)


def test_outputs_are_a_list_of_names() -> None:
    metadata = model("FP32", -1)
    assert check_outputs(metadata, None, ORIGIN) == ()
    assert check_outputs(metadata, ["y"], ORIGIN) == ("y",)
    wrong: Any
    for wrong in ("y", []):
        with pytest.raises(InvalidInput, match="give a list of output names"):
            check_outputs(metadata, wrong, ORIGIN)


class Untold:
    """Has ``__array__``, which fails, as a tensor's that requires grad."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("call detach first")


def test_what_cannot_become_an_array_without_loss_is_refused() -> None:
    assert "some elements are masked" in refusal(
        model("FP32", 2), np.ma.masked_array(np.ones(2, np.float32), np.array([False, True]))
    )
    assert encoded(model("FP32", 2), np.ma.masked_array(np.ones(2, np.float32), np.array([False, False]))).shape == (2,)
    assert "call detach first" in refusal(model("FP32", 2), Untold())
    for datatype in ("FP32", "FP64"):
        assert "the values do not fit the type" in refusal(model(datatype, 1), [2**53 + 1])
    assert np.frombuffer(encoded(model("FP64", 1), [-(2**53)]).data)[0] == -(2.0**53)
    assert "pass str or bytes" in refusal(model("BYTES", 1), [None])


@pytest.mark.parametrize("value", [np.ones(1, np.float32), [1.0]])
def test_a_model_with_a_type_that_the_protocol_lacks_is_named(value: Any) -> None:
    assert "has the datatype FP8, which is not in KServe v2" in refusal(model("FP8", -1), value)


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "expected"),
    [
        (np.str_("a"), "BYTES", (-1,), [b"a"]), (np.str_("größe"), "BYTES", (-1, 1), [["größe".encode()]]),
        (np.bytes_(b"a\0\0"), "BYTES", (1,), [b"a\0\0"]), ([np.bytes_(b"a\0"), "b"], "BYTES", (-1,), [b"a\0", b"b"]),
        (["a", np.str_("b")], "BYTES", (-1,), [b"a", b"b"]), ([["a"], [np.bytes_(b"\0")]], "BYTES", (-1, 1), [[b"a"], [b"\0"]]),
        (np.array(["a", "b"], np.dtypes.StringDType()), "BYTES", (-1,), [b"a", b"b"]),
        (np.array(["a", b"b"], object), "BYTES", (-1,), [b"a", b"b"]), (np.array([b"ab"]), "BYTES", (1,), [b"ab"]),
        (np.float64(2), "FP32", (1,), [2.0]), (np.float32(2), "FP64", (1, 1), [[2.0]]),
        ([np.float64(1), 2.0], "FP32", (-1,), [1.0, 2.0]), ([1.0, np.float64(2)], "FP32", (-1,), [1.0, 2.0]),
        ([np.int64(1), 2], "INT8", (-1,), [1, 2]), (np.int64(3), "FP16", (1,), [3.0]), (np.longdouble(2), "FP32", (1,), [2.0]),
        ([[np.int32(1)], [np.uint8(2)]], "UINT8", (-1, 1), [[1], [2]]), (np.bool_(True), "BOOL", (1,), [True]),
        (np.bool_(True), "INT8", (1,), [1]), (ml_dtypes.bfloat16(1.5), "BF16", (1,), [1.5]),
        ([ml_dtypes.bfloat16(1.5), ml_dtypes.bfloat16(2)], "FP32", (-1,), [1.5, 2.0]),
        (np.array(3, np.int32), "INT32", (), 3),
    ],
)  # fmt: skip
def test_numpy_scalars_are_values_as_pythons_are(
    value: Any, datatype: str, shape: tuple[int, ...], expected: Any
) -> None:
    assert encoded(model(datatype, *shape), value).tolist() == expected


@pytest.mark.parametrize(
    ("value", "datatype", "words"),
    [
        (np.float64(1.5), "INT32", "do not fit the type"), ([1, np.int64(300)], "UINT8", "do not fit the type"),
        ([np.float64(1e300)], "FP32", "do not fit the type"), (np.complex64(1), "FP32", "do not fit the type"),
        ([1.0, np.array(2.0)], "FP32", "lose information"), ([np.array(1.0), 2.0], "FP32", "lose information"),
        ([[1.0], np.array([2.0])], "FP32", "lose information"),
        (np.datetime64("2026-01-01"), "INT64", "no type for dates"), ([np.timedelta64(1, "s")], "INT64", "no type for dates"),
        (np.array(["2026-01-01"], "M8[D]"), "INT64", "lose information"), (np.array([(1, 2.0)], "i4,f4"), "FP32", "lose information"),
        (np.array([(1, 2.0)], "i4,f4")[0], "FP32", "do not fit the type"), (np.array(1.0, np.float32), "FP32", "its rank is 0"),
        (np.array("a"), "BYTES", "its rank is 0"), (np.array([None, "a"], object), "BYTES", "an element is a NoneType"),
        (np.array([1, "a"], object), "BYTES", "an element is a int"), (np.float32(1), "BYTES", "an element is a float32"),
        (np.str_("1"), "FP32", "do not fit the type"), (["1", np.float32(1)], "FP32", "do not fit the type"),
    ],
)  # fmt: skip
def test_numpy_values_that_no_input_holds_are_named(value: Any, datatype: str, words: str) -> None:
    assert words in refusal(model(datatype, -1), value)


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.ones(2, np.float16), "FP16"),
        (np.arange(3), "INT64"),
        (np.ones(2, ">f4"), "FP32"),
        (np.float32(1), "FP32"),
        ([np.int8(1), np.int8(2)], "INT8"),
        ("text", "BYTES"),
        ([["a"], [b"b"]], "BYTES"),
        (np.array(["a", b"b"], object), "BYTES"),
        (np.array(["a", "b"]), "BYTES"),
        ([True, False], "BOOL"),
    ],
)
def test_an_input_that_nobody_declares_has_the_type_and_shape_of_its_value(value: Any, datatype: str) -> None:
    for metadata in (ModelMetadata("m"), ModelMetadata("m", inputs=(TensorSpec("x"),))):
        (tensor,) = encode_inputs(metadata, {"x": value}, ORIGIN)
        assert (tensor.datatype, tensor.shape) == (datatype, np.shape(value))


@pytest.mark.parametrize("value", [1, 1.5, [1, 2], [], np.ones(1, complex), None, Untold()])
def test_an_input_that_nobody_declares_needs_a_value_with_one_type(value: Any) -> None:
    assert "np.asarray(x, np.float32), or declare the input" in refusal(ModelMetadata("m"), value)


def test_a_declared_batch_is_checked_without_shapes_too() -> None:
    metadata = ModelMetadata("m", inputs=(TensorSpec("x", "FP32"),), max_batch_size=2)
    assert encoded(metadata, np.ones((2, 3), np.float32)).shape == (2, 3)
    for value in (np.ones((3, 3), np.float32), np.float32(1)):
        assert "expected 1 to 2" in refusal(metadata, value)


def test_a_declaration_that_is_none_is_refused() -> None:
    for models, words in (
        (["m"], "models holds a str"),
        ([ModelMetadata("m"), ModelMetadata("m")], "declared twice"),
        ([ModelMetadata("m", inputs=(TensorSpec("x", "float32"),))], "declared as 'float32'"),
    ):
        with pytest.raises(InvalidInput, match=words):
            Client("grpc://127.0.0.1:1", models=models)  # type: ignore[arg-type]
