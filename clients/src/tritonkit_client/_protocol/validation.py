"""Checks a caller's inputs against a model's metadata and encodes them: mistakes are found before sending."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .calls import Outputs, Tensor
from .device_array import DeviceArray, device_array, on_device
from .errors import InvalidInput, Origin
from .metadata import ModelMetadata, TensorSpec
from .tensors import BYTES, DTYPES, FLOATS, INTEGERS, Array, datatype_of, encode

# The fix for a caller who passes prompt=, as if it were an input's name.
UNNAMED = "a language model's prompt has no name: client.stream(model, 'once upon a time')"


def encode_inputs(metadata: ModelMetadata, values: Mapping[str, npt.ArrayLike], origin: Origin) -> tuple[Tensor, ...]:
    """Check all inputs of a request and encode them.

    Args:
        metadata: What the model is.
        values: By input name: an array whose dtype casts safely to the input's, or plain Python numbers,
            strings, bytes and lists of them that the input's type holds exactly (floats: rounded to it).
            Plain Python values also gain the dimensions that can only be 1. An array on a GPU has the input's
            own dtype, and is not read.
        origin: The call, for error messages.

    Raises:
        InvalidInput: A name, a type, a shape or a batch does not fit.
    """
    return _as_they_are(metadata, values) or _encoded(metadata, values, origin)


def _as_they_are(metadata: ModelMetadata, values: Mapping[str, npt.ArrayLike]) -> tuple[Tensor, ...] | None:
    """The inputs where all of them are arrays of the right type and shape, which is nearly always; else None.

    This way is short, for speed; the long way converts and explains.
    """
    limit = metadata.max_batch_size
    if len(values) != len(metadata.inputs):
        return None
    tensors = []
    rows = -1
    for spec in metadata.inputs:
        value = values.get(spec.name)
        if type(value) is not np.ndarray or spec.datatype == BYTES:
            return None
        if spec.datatype not in DTYPES or value.dtype != DTYPES[spec.datatype]:
            return None
        shape = value.shape
        if len(shape) != len(spec.shape) or not _fits(shape, spec.shape):
            return None
        if limit:
            rows = shape[0] if rows < 0 else rows
            if shape[0] != rows or not 0 < rows <= limit:
                return None
        tensors.append(Tensor(spec.name, spec.datatype, shape, encode(value, spec.datatype)))
    return tuple(tensors)


def _encoded(metadata: ModelMetadata, values: Mapping[str, npt.ArrayLike], origin: Origin) -> tuple[Tensor, ...]:
    _check_names(metadata, values, origin)
    specs = metadata.inputs or [TensorSpec(name) for name in values]
    inputs = [_Input(_typed(spec, values[spec.name], origin), origin) for spec in specs if spec.name in values]
    arrays = [item.array(values[item.spec.name]) for item in inputs]
    if metadata.max_batch_size:
        sizes = {item.spec.name: (*array.shape, 0)[0] for item, array in zip(inputs, arrays, strict=True)}
        _check_batch(metadata, sizes, origin)
    return tuple(item.encode(array) for item, array in zip(inputs, arrays, strict=True))


def check_outputs(metadata: ModelMetadata, outputs: Outputs | None, origin: Origin) -> tuple[str, ...]:
    """The names of the outputs to ask for; an empty tuple means all.

    Raises:
        InvalidInput: The model has no such output, or ``outputs`` is one string.
    """
    if outputs is None:
        return ()
    if isinstance(outputs, str) or not outputs:
        raise InvalidInput(
            f"outputs is {outputs!r}", "give a list of output names, or leave it out for all of them", origin
        )
    known = [spec.name for spec in metadata.outputs]
    for name in outputs:
        if known and name not in known:
            raise InvalidInput(f"model {origin.model} has no output {name!r}", _nearest(name, known), origin)
    return tuple(outputs)


def _check_names(metadata: ModelMetadata, values: Iterable[str], origin: Origin) -> None:
    known = [spec.name for spec in metadata.inputs]
    given = set(values)
    if "prompt" in given.difference(known) and "text_input" in known:
        raise InvalidInput(f"model {origin.model} has no input 'prompt'", UNNAMED, origin)
    for name in given.difference(known) if known else ():
        raise InvalidInput(f"model {origin.model} has no input {name!r}", _nearest(name, known), origin)
    for spec in metadata.inputs:
        if spec.name not in given and not spec.optional:
            raise InvalidInput(
                f"model {origin.model} needs input {spec.name!r}: expected {spec}, given nothing",
                f"pass {spec.name}=",
                origin,
            )


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    names = ", ".join(known)
    return f"did you mean {close[0]!r}? It has {names}" if close else f"it has {names}"


def _check_batch(metadata: ModelMetadata, sizes: Mapping[str, int], origin: Origin) -> None:
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise InvalidInput(
            f"the inputs of model {origin.model} have different batch sizes: {listed}",
            "give every input the same first dimension",
            origin,
        )
    for name, size in sizes.items():
        if not 0 < size <= metadata.max_batch_size:
            raise InvalidInput(
                f"input {name!r} of model {origin.model} is a batch of {size}: expected 1 to {metadata.max_batch_size}",
                f"send at most {metadata.max_batch_size} samples in one request, and at least one",
                origin,
            )


class _Input:
    """One input of a request: its spec, and the origin for errors."""

    def __init__(self, spec: TensorSpec, origin: Origin) -> None:
        self.spec = spec
        self._origin = origin
        if spec.datatype not in DTYPES:
            raise InvalidInput(
                f"input {spec.name!r} of model {origin.model} has the datatype {spec.datatype}, "
                "which is not in KServe v2",
                "give the model an input of another type, or declare the one that it takes:"
                " Client(..., models=[ModelMetadata(...)])",
                origin,
            )
        self._dtype = DTYPES[spec.datatype]

    def array(self, value: npt.ArrayLike) -> Array | DeviceArray:
        """The value as an array of the input's type and shape."""
        if on_device(_first(value)):
            return self._on_device(value)
        plain = not _is_typed(value)
        if self.spec.datatype == BYTES:
            array = self._strings(value)
        elif plain:
            array = self._numbers(value)
        else:
            array = self._cast(self._read(value), self._spelled(value))
        if plain:
            array = array.reshape(_padded(array.shape, self.spec.shape))
        self._check_shape(array, self._spelled(value))
        return array

    def _spelled(self, value: object) -> str:
        """The code with which a caller writes the value as an array."""
        return self.spec.name if isinstance(value, np.ndarray) else f"np.asarray({self.spec.name})"

    def encode(self, array: Array | DeviceArray) -> Tensor:
        """The encoded input."""
        if isinstance(array, DeviceArray):
            return Tensor(self.spec.name, self.spec.datatype, array.shape, b"", device=array if array.size else None)
        try:
            return Tensor(self.spec.name, self.spec.datatype, array.shape, encode(array, self.spec.datatype))
        except UnicodeEncodeError as error:
            raise self._refuse(f"a string is not valid text ({error})", array, "pass bytes instead") from error

    def _on_device(self, value: object) -> DeviceArray:
        """An array on a GPU: used as it is or refused, as nothing here could cast or rearrange it there."""
        name, given = self.spec.name, type(value).__name__
        if isinstance(value, (list, tuple)):
            raise self._error("arrays on a GPU are not put together", given, "stack them there, into one array")
        try:
            array = device_array(value)
        except ValueError as error:
            fix = f"pass a plain array: {name}.detach() of a PyTorch tensor"
            raise self._error(f"the array on a GPU cannot be read ({error})", given, fix) from error
        if self.spec.datatype == BYTES:
            raise self._refuse("text is not taken from a GPU", array, "pass str or bytes, or lists of them")
        if array.dtype != self._dtype:
            raise self._refuse("an array on a GPU must have the very type", array, "cast it there")
        if not array.contiguous:
            fix = f"pass {name}.contiguous() of a PyTorch tensor, cupy.ascontiguousarray({name}) of a CuPy array"
            raise self._refuse("an array on a GPU must be C-contiguous", array, fix)
        self._check_shape(array, name)
        return array

    def _read(self, value: npt.ArrayLike) -> Array:
        """A value that has ``__array__``, as a numpy array."""
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise self._error("some elements are masked", type(value).__name__, "fill them: .filled(value)")
        try:
            return np.asarray(value)
        except (TypeError, RuntimeError, ValueError) as error:  # PyTorch's, for example: it requires grad
            raise self._error(f"it gives no array ({error})", type(value).__name__, "make it a numpy array") from error

    def _cast(self, array: Array, spelled: str) -> Array:
        if array.dtype == self._dtype:
            return array
        if not np.can_cast(array.dtype, self._dtype, "safe"):
            raise self._refuse(
                "the type would lose information",
                array,
                f"if you want that, cast it yourself: {spelled}.astype({_spelled(self._dtype)})",
            )
        return array.astype(self._dtype)

    def _numbers(self, value: npt.ArrayLike) -> Array:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise self._refuse_value("the lists have different lengths", value) from error
        if not array.size:
            return array.astype(self._dtype)
        with np.errstate(over="ignore"):
            if array.dtype.kind in "Mm":
                raise self._refuse_value("Triton has no type for dates and durations", value)
            if array.dtype.kind not in "biufV" or not _holds(self.spec.datatype, array):
                raise self._refuse_value("the values do not fit the type", value)
            return array.astype(self._dtype)

    def _strings(self, value: npt.ArrayLike) -> Array:
        try:
            array = np.asarray(value) if _is_typed(value) else np.array(_unboxed(value), dtype=np.object_)
        except ValueError as error:
            raise self._refuse_value("the lists have different lengths", value) from error
        if array.dtype.kind not in "SUTO":
            raise self._refuse("the type is not text", array, "pass str or bytes, or a list or an array of them")
        for item in array.reshape(-1).tolist():
            if not isinstance(item, (str, bytes)):
                raise self._refuse_value(f"an element is a {type(item).__name__}", value)
        return array

    def _check_shape(self, array: Array | DeviceArray, spelled: str) -> None:
        expected, shape = self.spec.shape, array.shape
        if not expected:  # a scalar, or not declared: the server checks it
            return
        if len(expected) != len(shape):
            fix = f"reshape it to {len(expected)} dimensions"
            if len(shape) + 1 == len(expected) and expected[0] == -1 and _fits(shape, expected[1:]):
                fix = f"add the batch dimension: {spelled}[np.newaxis]"
            raise self._refuse(f"its rank is {len(shape)}, not {len(expected)}", array, fix)
        if not _fits(shape, expected):
            axis = next(i for i, size in enumerate(expected) if size not in (-1, shape[i]))
            raise self._refuse(
                f"dimension {axis} is {shape[axis]}, not {expected[axis]}", array, "give it the expected shape"
            )

    def _refuse(self, problem: str, array: Array | DeviceArray, fix: str) -> InvalidInput:
        return self._error(problem, f"{datatype_of(array.dtype)} {list(array.shape)}", fix)

    def _refuse_value(self, problem: str, value: object) -> InvalidInput:
        given = type(value).__name__
        text = self.spec.datatype == BYTES
        fix = "pass str or bytes, or lists of them" if text else f"pass an array of dtype {_spelled(self._dtype)}"
        return self._error(problem, given, fix)

    def _error(self, problem: str, given: str, fix: str) -> InvalidInput:
        name = f"input {self.spec.name!r} of model {self._origin.model}"
        return InvalidInput(f"{name}: {problem}; expected {self.spec}, given {given}", fix, self._origin)


def _typed(spec: TensorSpec, value: npt.ArrayLike, origin: Origin) -> TensorSpec:
    """The spec of an input with the datatype of its value, where nobody declares one.

    Raises:
        InvalidInput: The value has no type of KServe v2, or could have several.
    """
    if spec.datatype:
        return spec
    datatype = _datatype_of_value(value)
    if datatype not in DTYPES:
        raise InvalidInput(
            f"input {spec.name!r} of model {origin.model} has no declared datatype, and {type(value).__name__}"
            f"{f' of {datatype}' if datatype else ''} does not tell which one is meant",
            f"pass an array of the dtype that the model takes, say np.asarray({spec.name}, np.float32), or declare"
            f" the input: models=[ModelMetadata({origin.model!r}, inputs=[TensorSpec({spec.name!r}, 'FP32')])]",
            origin,
        )
    return replace(spec, datatype=datatype)


def _datatype_of_value(value: Any) -> str:
    """The datatype that a value has by itself; empty for plain numbers and for values that are no arrays."""
    first = _first(value)
    if isinstance(first, (str, bytes)):
        return BYTES
    if isinstance(first, bool):
        return "BOOL"
    if isinstance(first, np.generic):
        return datatype_of(np.asarray(value).dtype)
    try:
        if on_device(first):
            return datatype_of(device_array(first).dtype)
        return datatype_of(np.asarray(value).dtype) if _is_typed(value) else ""
    except (TypeError, RuntimeError, ValueError):  # PyTorch's, for example: it requires grad
        return ""


def _is_typed(value: object) -> bool:
    """Whether a value has a type of its own: an array, or nested lists that contain an array.

    NumPy's scalars count as plain values, as Python's do: `numpy.str_` is a `str`, `numpy.float64` a `float`.
    """
    if not isinstance(value, (list, tuple)):
        return hasattr(value, "__array__") and not isinstance(value, np.generic)
    kinds = set(map(type, value))
    if any(hasattr(kind, "__array__") and not issubclass(kind, np.generic) for kind in kinds):
        return True
    nested = any(issubclass(kind, (list, tuple)) for kind in kinds)
    return nested and any(_is_typed(item) for item in value if isinstance(item, (list, tuple)))


def _unboxed(value: Any) -> Any:
    """Strings with NumPy's own turned into Python's: numpy would drop the last NULs of a `numpy.bytes_`."""
    if isinstance(value, (list, tuple)):
        return [_unboxed(item) for item in value]
    # Not with item(), which drops them too.
    return bytes(value) if isinstance(value, np.bytes_) else "".join((value,)) if isinstance(value, np.str_) else value


def _first(value: object) -> object:
    """The first element of nested lists that is not a list."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def _holds(datatype: str, array: Array) -> bool:
    """Whether a type holds plain Python numbers: integers exactly, floats without overflow."""
    target = DTYPES[datatype]
    if np.can_cast(array.dtype, target, "safe") and not (array.dtype.kind in "iu" and datatype in FLOATS):
        return True  # numpy calls int64 to float64 safe
    if array.dtype.kind in "iu" and datatype in INTEGERS:
        limits = np.iinfo(target)
        return limits.min <= int(array.min()) and int(array.max()) <= limits.max
    if array.dtype.kind in "iu" and datatype in FLOATS:
        # Compared as float64, which holds every integer to 2**53 and only some of the larger ones.
        exact = max(-int(array.min()), int(array.max())) <= 2**53
        return exact and bool(np.all(array.astype(target).astype(np.float64) == array))
    if array.dtype.kind == "f" and datatype in FLOATS:
        return bool(np.all(np.isfinite(array.astype(target)) == np.isfinite(array)))
    return False


def _padded(shape: tuple[int, ...], expected: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of plain Python values, with those missing dimensions added whose size can only be 1."""
    missing = expected[len(shape) :]
    only_one = (1,) if shape else (1, -1)
    return shape + (1,) * len(missing) if all(size in only_one for size in missing) else shape


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    # A loop, as a generator would cost more than the comparison.
    for size, actual in zip(expected, shape, strict=True):  # noqa: SIM110
        if size != -1 and size != actual:
            return False
    return True


def _spelled(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "bO":
        return dtype.name
    return "ml_dtypes.bfloat16" if dtype.kind == "V" else f"np.{dtype.name}"
