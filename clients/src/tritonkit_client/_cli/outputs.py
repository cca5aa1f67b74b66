"""What ``tritonkit-client`` prints, and ``infer`` saves.

JSON is that of RFC 8259: a value that it lacks, NaN for example, is spelled as in other JSON formats; nothing is left
out or changed in silence.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from .._protocol.classes import Class
from .._protocol.errors import InvalidInput
from .._protocol.tensors import Array

# Longer outputs are shown by their beginning and end.
_SHOWN = 20


def say(text: str, where: Any = None, *, end: str = "\n") -> None:
    """Print to a stream, stdout where none is named.

    Raises:
        OSError: It cannot be written to.
    """
    where = where or sys.stdout
    if where is None:  # closed by the parent process; print() would drop the text in silence
        raise OSError("the standard output is closed")
    # Flushed: a stream is read as it comes, and a closed pipe raises here instead of at the exit.
    print(text, file=where, end=end, flush=True)


def as_json(array: Array) -> Any:
    """A tensor as nested lists for `json.dumps`.

    Numbers that JSON does not have are ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as in protobuf's JSON mapping;
    bytes that are not UTF-8 are ``{"b64": "..."}``, as in TensorFlow Serving's REST API; classes are objects.
    """
    if array.dtype.kind in "fV":
        array = array.astype(np.float64)
        if np.isfinite(array).all():
            return array.tolist()
    elif array.dtype != object:
        return array.tolist()
    plain = np.empty(array.size, object)
    plain[:] = [_plain(item) for item in array.reshape(-1).tolist()]
    return plain.reshape(array.shape).tolist()


def _plain(item: Any) -> Any:
    if isinstance(item, float):
        return item if np.isfinite(item) else "NaN" if np.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    if isinstance(item, Class):
        return {"index": item.index, "label": item.label, "score": _plain(item.score)}
    text = _text(item)
    return text if text is not None else {"b64": base64.b64encode(item).decode()}


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def as_text(name: str, array: Array) -> str:
    """An output for people: one line, or a line for each row where it holds classes."""
    if array.size and isinstance(array.flat[0], Class):
        rows = array.reshape(-1, array.shape[-1])
        return "\n".join(f"{name} {number}: {', '.join(map(str, row))}" for number, row in enumerate(rows))
    flat = as_json(array.reshape(-1)[:_SHOWN])
    return f"{name} {list(array.shape)} {array.dtype}: {json.dumps(flat)}{' …' if array.size > _SHOWN else ''}"


def save(outputs: Mapping[str, Array], folder: Path) -> list[str]:
    """Write every output to a file of its own, or none where one cannot be written under its name.

    Numbers go to ``NAME.npy``, BF16 among them as float32, which numpy knows. So does text. Bytes that are no text, or
    that end in NULs, which numpy's strings drop, go to ``NAME.bin``, as they are; several elements to
    ``NAME.0.bin``, ``NAME.1.bin`` and so on, in C order.

    Returns:
        A remark for each output that is not in ``NAME.npy`` with its own type.

    Raises:
        InvalidInput: An output's name cannot be a file's.
        OSError: A file cannot be written; nothing of it is left.
    """
    writers: dict[str, Callable[[BinaryIO], object]] = {}
    remarks = []
    for name, array in outputs.items():
        if Path(name).name != name or "\0" in name:  # a server must not choose another folder
            raise InvalidInput(f"output {name!r} cannot be the name of a file", "leave --save out")
        if array.dtype == object and not _fits_numpy_text(array):
            items = array.reshape(-1).tolist()
            names = [f"{name}.bin"] if len(items) == 1 else [f"{name}.{number}.bin" for number in range(len(items))]
            writers |= {file: _writer(item) for file, item in zip(names, items, strict=True)}
            listed = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            remarks.append(f"output {name!r} {list(array.shape)} is not text that .npy can hold: saved as {listed}")
            continue
        if array.dtype == ml_dtypes.bfloat16:
            remarks.append(f"output {name!r} is BF16, which .npy cannot name: saved as float32, with the same values")
            array = array.astype(np.float32)
        writers[f"{name}.npy"] = _writer(_as_text_array(array) if array.dtype == object else array)
    folder.mkdir(parents=True, exist_ok=True)
    for file, write in writers.items():
        _write(folder / file, write)
    for name in outputs:
        if f"{name}.npy" not in writers:  # a file of an earlier call would pass for this call's
            (folder / f"{name}.npy").unlink(missing_ok=True)
    return remarks


def _fits_numpy_text(array: Array) -> bool:
    return all(_text(item) is not None and not item.endswith(b"\0") for item in array.reshape(-1))


def _as_text_array(array: Array) -> Array:
    # Not an object array: numpy would save it as a pickle, which is unsafe to load.
    return np.array([item.decode() for item in array.reshape(-1)], dtype=np.str_).reshape(array.shape)


def _writer(content: Array | bytes) -> Callable[[BinaryIO], object]:
    if isinstance(content, bytes):
        return lambda file: file.write(content)
    return lambda file: np.save(file, content, allow_pickle=False)


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
