"""What the chart's tests share: helm, fetched once if the machine has none."""

from __future__ import annotations

import os

import pytest

from tritonkit.errors import MissingError
from tritonkit.kubetools import binaries


@pytest.fixture(scope="session", autouse=True)
def _helm_is_there() -> None:
    """Without helm nothing here can be tested: a reason to skip on a person's machine, a failure where CI runs."""
    try:
        binaries.helm()
    except MissingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
