"""Turns the arguments of ``tritonkit-client infer`` (JSON, text, files, images) into a model's inputs."""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._protocol.errors import InvalidInput
from .._protocol.metadata import ModelMetadata, TensorSpec
from .._protocol.tensors import BYTES, DTYPES, FLOATS, Array

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_inputs(metadata: ModelMetadata, arguments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The inputs by name; an input that is given several times, or as several files, is one batch.

    Raises:
        InvalidInput: The model has no such input, a file cannot be read as its type, or the input has no batch.
    """
    given: dict[str, list[Any]] = {}
    specs: dict[str, TensorSpec] = {}
    for name, text in arguments:
        spec = _spec(metadata, name)
        specs[spec.name] = spec
        values = given.setdefault(spec.name, [])
        if metadata.inputs:
            values += [_fitted(value, spec, bool(metadata.max_batch_size)) for value in _values(spec, text)]
        else:
            values += [_typed(value, spec) for value in _values(spec, text)]
    return {name: values[0] if len(values) == 1 else _joined(values, specs[name]) for name, values in given.items()}


def _spec(metadata: ModelMetadata, name: str) -> TensorSpec:
    """The input of this name, or of ``name:DATATYPE`` where the server declares no inputs."""
    if metadata.inputs:
        spec = next((spec for spec in metadata.inputs if spec.name == name), None)
        if spec is None:
            known = ", ".join(spec.name for spec in metadata.inputs)
            raise InvalidInput(f"model {metadata.name} has no input {name!r}", f"it has {known}")
        return spec
    plain, _, datatype = name.rpartition(":")
    if not plain or datatype not in DTYPES:
        raise InvalidInput(
            f"the server does not say what model {metadata.name} takes",
            f"say it in front of the value: {plain or name}:FP32=[[1, 2]], with one of {', '.join(DTYPES)}",
        )
    return TensorSpec(plain, datatype)


def _typed(value: Any, spec: TensorSpec) -> Any:
    """Plain numbers as an array of the type in the argument."""
    if spec.datatype == BYTES or isinstance(value, np.ndarray):
        return value
    try:
        return np.asarray(value, DTYPES[spec.datatype])
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"input {spec.name!r} is no {spec.datatype}: {error}", "give numbers of that type"
        ) from error


def _values(spec: TensorSpec, text: str) -> list[Any]:
    if text.startswith("@"):
        return [_from_file(path, spec) for path in _files(text[1:], spec)]
    if spec.datatype == BYTES:
        return [_strings(_texts(text))]
    # As plain numbers, which the client takes only where the input's type holds them.
    return [_numbers(_json(text, f"input {spec.name!r}"), spec)]


def _joined(values: list[Any], spec: TensorSpec) -> Any:
    """Several values as one batch."""
    if not spec.shape or spec.shape[0] != -1:
        raise InvalidInput(
            f"input {spec.name!r} is given {len(values)} times, and is no batch: {spec}", "give it once a command"
        )
    if not all(isinstance(value, np.ndarray) for value in values):
        return [row for value in values for row in value]
    try:
        return np.concatenate(values)
    except ValueError as error:
        shapes = sorted({str(list(value.shape)) for value in values})
        fix = "give images of one size: the model leaves the size open" if len(spec.shape) == 4 else "give one shape"
        raise InvalidInput(f"the values of input {spec.name!r} differ in shape: {', '.join(shapes)}", fix) from error


def _files(pattern: str, spec: TensorSpec) -> list[Path]:
    """The file of this name, or those that match it."""
    if Path(pattern).is_file():
        return [Path(pattern)]
    paths = sorted(Path(path) for path in glob.glob(pattern) if Path(path).is_file())  # noqa: PTH207 -- may be absolute
    if not paths:
        what = "matches no file" if glob.has_magic(pattern) else "is not a file"
        raise InvalidInput(f"{pattern} {what}", f"give an existing file for input {spec.name!r}")
    return paths


def _from_file(path: Path, spec: TensorSpec) -> Any:
    kind = path.suffix.lower()
    if kind == ".npy":
        return _array(path, spec)
    if kind == ".json":
        value = _json(path.read_bytes(), str(path))
        return _strings(value) if spec.datatype == BYTES else _numbers(value, spec)
    if kind in _IMAGES and spec.datatype != BYTES:
        return _image(path, spec)
    if spec.datatype == BYTES:
        text = path.read_bytes()
        return [text.strip() if kind == ".txt" else text]
    raise InvalidInput(f"{path}: files of kind {kind or 'nothing'} are not known here", "use .npy, .json or an image")


def _array(path: Path, spec: TensorSpec) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise InvalidInput(f"{path} is not an array: {error}", "save it with numpy.save, of plain numbers") from error
    if spec.datatype != "BF16":
        return array
    # .npy has no name for BF16: numpy writes two bytes without a type, this command float32.
    if array.dtype == np.dtype("V2"):
        return array.view(DTYPES["BF16"])
    short = array.astype(DTYPES["BF16"]) if array.dtype == np.float32 else array
    return short if np.array_equal(short.astype(np.float32), array, equal_nan=True) else array


def _image(path: Path, spec: TensorSpec) -> Array:
    """An image, upright, as [height, width, 3] or [3, height, width], whichever the input is; floats are 0 to 1."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise InvalidInput(f"{path} needs Pillow to be read", "pip install pillow, or give a .npy file") from None
    if spec.datatype not in {"UINT8", *FLOATS}:
        raise InvalidInput(f"input {spec.name!r} is {spec.datatype}, which images are not", "give a .npy file")
    dims = spec.shape[-3:]
    first = len(dims) == 3 and dims[0] in (1, 3) and dims[-1] not in (1, 3)
    height, width = (dims[1:] if first else dims[:2]) if len(dims) == 3 else (-1, -1)
    try:
        with Image.open(path) as opened:
            # Cameras write their orientation beside the pixels: tag 0x0112 of EXIF.
            picture = ImageOps.exif_transpose(opened).convert("L" if (dims[0] if first else dims[-1]) == 1 else "RGB")
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InvalidInput(f"{path} is not an image: {error}", "give one that Pillow reads, or a .npy file") from error
    if height > 0 and width > 0:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture)
    array = array[..., None] if array.ndim == 2 else array
    array = np.moveaxis(array, -1, 0) if first else array
    return array if spec.datatype == "UINT8" else (array / 255).astype(DTYPES[spec.datatype])


def _fitted(value: Any, spec: TensorSpec, batched: bool) -> Any:
    """The value with its missing dimensions added, where they are only the batch, or can only be 1."""
    missing = len(spec.shape) - _rank(value)
    if (batched and missing == 1) or (missing > 0 and set(spec.shape[:missing]) <= {-1, 1}):
        for _ in range(missing):
            value = value[np.newaxis] if isinstance(value, np.ndarray) else [value]
    return value


def _rank(value: Any) -> int:
    """The rank of an array, or of nested lists by their first elements; the client refuses uneven lists."""
    if isinstance(value, list):
        return 1 + (_rank(value[0]) if value else 0)
    return int(np.ndim(value))


def _texts(text: str) -> list[Any]:
    """A JSON list of texts, or a single text, which may begin with a bracket too."""
    if text.startswith("["):
        with contextlib.suppress(ValueError):
            texts: list[Any] = json.loads(text)
            return texts
    return [text]


def _strings(value: Any) -> Any:
    """Texts, with ``{"b64": "..."}`` for bytes that are no text, as this command prints them."""
    return [_strings(item) for item in value] if isinstance(value, list) else _string(value)


def _string(item: Any) -> Any:
    if not (isinstance(item, dict) and item.keys() == {"b64"}):
        return item
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{item} is not base64: {error}", 'give {"b64": "..."}, or @FILE with the bytes') from error


def _numbers(value: Any, spec: TensorSpec) -> Any:
    """Numbers, with those that JSON does not have from their names, as this command prints them."""
    if isinstance(value, list):
        return [_numbers(item, spec) for item in value] if _odd(value) else value
    return _SPELLED[value] if isinstance(value, str) and value in _SPELLED and spec.datatype in FLOATS else value


def _odd(value: list[Any]) -> bool:
    return not {int, float, bool}.issuperset(map(type, value))


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text, parse_float=_float)
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}", "write numbers like [[1, 2.5]], or @FILE") from error


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is larger than any float")
    return number
