"""Reads passports' JSON: with the first mistake in words, or as far as it can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Part = TypeVar("Part", bound=BaseModel)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def parse_readable(model: type[Part], data: Mapping[str, Any]) -> Part:
    """The model without the keys that do not validate; every field of it has a default."""
    kept = dict(data)
    while True:
        try:
            return model.model_validate(kept)
        except ValidationError as error:
            unreadable = {entry["loc"][0] for entry in error.errors() if entry["loc"]} & kept.keys()
            kept = {key: value for key, value in kept.items() if key not in unreadable} if unreadable else {}


def first_mistake(error: ValidationError) -> str:
    """The first mistake: its key and what is wrong there."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "passport"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"
