"""Where an engine's passport lies: ``model_sm86.plan`` has ``model_sm86.plan.json``; what it says is
:class:`tritonkit.passport.EnginePassport`.
"""

from __future__ import annotations

import json
from pathlib import Path

from tritonkit import atomic
from tritonkit.errors import InputError
from tritonkit.passport import EnginePassport

SUFFIX = ".json"


def path_of(plan: Path) -> Path:
    """Where the passport of a plan lies."""
    return plan.with_name(plan.name + SUFFIX)


def read(plan: Path) -> EnginePassport:
    """The passport of a plan.

    Raises:
        InputError: The passport is missing, is cut short, is no passport, or contradicts itself.
    """
    place = path_of(plan)
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{plan} has no passport ({place.name})", "build it with `tritonkit engine`") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{place} is no JSON, perhaps cut short: {error}", "copy it again from where it was built, or build again"
        ) from error
    return EnginePassport.parse(data, place)


def write(plan: Path, passport: EnginePassport) -> None:
    """Put a passport beside its plan, whole or not at all."""
    atomic.write(path_of(plan), (passport.model_dump_json(indent=2) + "\n").encode())
