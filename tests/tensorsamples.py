"""A tensor of every datatype, with its extreme values, for tests of more than one server."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def extremes(dtype: npt.DTypeLike) -> Array:
    limits = np.iinfo(dtype)
    return np.array([[limits.min, 0, limits.max]], dtype=dtype)


FLOATS = [[-1.5, 0.0, 65504.0], [math.inf, -math.inf, math.nan]]
SAMPLES: dict[str, Array] = {
    "BOOL": np.array([[True, False, True]]),
    **{f"INT{8 * size}": extremes(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": extremes(f"u{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.array(FLOATS, dtype=f"f{size}") for size in (2, 4, 8)},
    "BF16": np.array(FLOATS, dtype=ml_dtypes.bfloat16),
    "BYTES": np.array([[b"", b"plain", "größe 😀".encode(), b"\0nul\0", b"x" * 70_000]], dtype=object),
}


def assert_identical(got: Array, want: Array) -> None:
    """The same bits, of the same type and shape."""
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.dtype == object:
        assert got.tolist() == want.tolist()
    else:
        assert got.tobytes() == want.tobytes()
