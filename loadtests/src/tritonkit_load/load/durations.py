"""Times as command lines take them."""

from __future__ import annotations

import math

from tritonkit.errors import InputError


def seconds(name: str, text: str, *, least: float = 1.0) -> float:
    """A time such as ``10s`` or ``10m``.

    Raises:
        InputError: the text is not a time, is shorter than ``least`` or longer than a day.
    """
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        duration_s = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        duration_s = math.nan
    if not least <= duration_s <= 24 * 3600:
        raise InputError(f"{name} is {text!r}", f"between {least:g}s and 24h, for example 10s or 10m")
    return duration_s
