"""Fits positive coefficients to measured rows, by relative error and close to where the fit begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tritonkit.errors import MissingError

C = TypeVar("C", bound=Any)  # a dataclass of numbers

PRIOR = 0.05  # how much an octave away from the start weighs beside a row's error: keeps what rows hardly say in place
_LEAST = 1e-3  # a coefficient's logarithm is what is fitted


def fit(
    start: C, limits: Mapping[str, tuple[float, float]], misses: Callable[[C], list[float]], *,
    loss: str = "linear", f_scale: float = 1.0,
) -> C:  # fmt: skip
    """Coefficients with the smallest misses.

    Args:
        start: Where the fit begins; what ``limits`` does not name stays.
        limits: Of each coefficient that is fitted.
        misses: Of some coefficients: logarithms of predicted over measured, a number a row.
        loss: SciPy's, for rows far off.
        f_scale: Where it begins to count less than squared.

    Raises:
        MissingError: SciPy is not installed.
    """
    try:
        from scipy.optimize import least_squares
    except ModuleNotFoundError as error:
        raise MissingError("scipy is not installed", "pip install 'tritonkit[advisor]'") from error
    begin = [math.log(getattr(start, name)) for name in limits]

    def known(values: Iterable[float]) -> C:
        changed: dict[str, Any] = {name: math.exp(value) for name, value in zip(limits, values, strict=True)}
        return replace(start, **changed)

    def residuals(values: Sequence[float]) -> list[float]:
        return misses(known(values)) + [PRIOR * (value - first) for value, first in zip(values, begin, strict=True)]

    low = [math.log(max(least, _LEAST)) for least, _ in limits.values()]
    high = [math.log(most) for _, most in limits.values()]
    return known(least_squares(residuals, begin, bounds=(low, high), loss=loss, f_scale=f_scale, diff_step=1e-3).x)
