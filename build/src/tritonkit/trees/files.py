"""Which format a forest's file has, and which version of its library wrote it; told from its bytes, running nothing.

Pickles are refused unread: loading one runs whatever code it names.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from tritonkit.errors import SourceError

LIBRARIES = {"xgboost_json": "xgboost", "xgboost_ubj": "xgboost", "xgboost": "xgboost", "lightgbm": "lightgbm"}
_PICKLES = {".pkl", ".pickle", ".joblib", ".dill"}
SUFFIXES = {".ubj", ".json", ".txt", ".tl", ".model", ".bin", ".cbm", *_PICKLES}
_KNOWN = "a forest is XGBoost's JSON or UBJSON, LightGBM's text, or a treelite checkpoint"
_HEAD = 4096
_TAIL = 4096
_CHUNK = 2**20


@dataclass(frozen=True)
class ForestFile:
    """A forest's file.

    Attributes:
        path: Where it is.
        model_type: The FIL backend's name of its format.
        version: The version of the library that wrote it; LightGBM's is that of the format. Empty where it says none.
    """

    path: Path
    model_type: str
    version: str

    @property
    def library(self) -> str:
        """The library that wrote it."""
        return LIBRARIES.get(self.model_type, "treelite")


def is_forest(path: Path) -> bool:
    """Whether a file's name is that of a forest, or of a pickle that might hold one."""
    return path.suffix in SUFFIXES and not path.is_dir()


def read(path: Path) -> ForestFile:
    """Tell a file's format.

    Raises:
        SourceError: The file cannot be read, or has a format that the backend does not read; the fix names another.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(path.stat().st_size - _TAIL, 0))
            tail = file.read()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", "paths are relative to the recipe") from error
    _refuse(path, head)
    if head[:2] == b"{L":
        return ForestFile(path, "xgboost_ubj", _version_of_ubjson(tail))
    if head.lstrip()[:1] == b"{":
        return ForestFile(path, "xgboost_json", _version_of_json(path))
    if head.lstrip()[:4] == b"tree":
        match = re.search(rb"^version=(\S+)", head, re.MULTILINE)
        if not _holds(path, b"\nend of trees"):  # treelite takes what is there
            raise SourceError(f"{path} is cut: LightGBM ends its trees with the line 'end of trees'", "copy it again")
        return ForestFile(path, "lightgbm", match[1].decode() if match else "")
    major, minor, patch = struct.unpack_from("<3i", head) if len(head) >= 12 else (0, 0, 0)
    if 1 <= major <= 9 and 0 <= minor < 100 and 0 <= patch < 100:
        return ForestFile(path, "treelite_checkpoint", f"{major}.{minor}.{patch}")
    raise SourceError(f"{path} is none of the formats that the FIL backend reads: {_KNOWN}", _save("model"))


def _save(name: str) -> str:
    return (
        f"save the {name} in one of them: booster.save_model('model.ubj') in XGBoost, booster.save_model('model.txt') "
        "in LightGBM, treelite.sklearn.import_model(forest).serialize('checkpoint.tl') for scikit-learn"
    )


def _refuse(path: Path, head: bytes) -> None:
    # Protocols from 2 on begin with their number; older ones, and compressed ones of joblib, by their suffix.
    if path.suffix in _PICKLES or re.match(rb"\x80[\x02-\x05]", head) or head[:9] == b"ccopy_reg":
        raise SourceError(
            f"{path} is a pickle, which can run any code when it is loaded, so it is not",
            "in the program that you trust it in, " + _save("forest"),
        )
    if head[:4] in {b"CBM1", b"\x08\x03\x12\x04"}:
        raise SourceError(
            f"{path} is no forest that treelite reads ({'CatBoost' if head[:3] == b'CBM' else 'ONNX'}): {_KNOWN}",
            "serve it as ONNX: model.save_model('model.onnx', format='onnx') and `tritonkit init model.onnx`",
        )
    if path.suffix in {".model", ".bin"} and head[:1] not in b"{t":
        raise SourceError(
            f"{path} is XGBoost's binary format, which XGBoost itself reads up to 3.0 only",
            "load it there and save it again: xgboost.Booster(model_file=PATH).save_model('model.ubj')",
        )
    if not head:
        raise SourceError(f"{path} is empty", _save("model"))


def _holds(path: Path, mark: bytes) -> bool:
    """Whether a file has some bytes, which are looked for from its end on."""
    with path.open("rb") as file:
        place = path.stat().st_size
        after = b""
        while place > 0:
            size = min(_CHUNK, place)
            place -= size
            file.seek(place)
            after = file.read(size) + after[: len(mark)]
            if mark in after:
                return True
    return False


def _version_of_ubjson(tail: bytes) -> str:
    """``version`` is the file's last field: an array of three small integers."""
    place = tail.rfind(b"version[#L")
    numbers = tail[place + 18 :] if place >= 0 else b""
    if len(numbers) < 6 or {numbers[0], numbers[2], numbers[4]} != {ord("i")}:
        return ""
    return f"{numbers[1]}.{numbers[3]}.{numbers[5]}"


def _version_of_json(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON: {error}", _save("model")) from error
    version = content.get("version")
    if "learner" not in content or not isinstance(version, list):
        raise SourceError(f"{path} is JSON, and not XGBoost's: it has no learner and version", _save("model"))
    return ".".join(map(str, version))
