"""Faults and the errors that they are, for tests of more than one server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tritonkit_client import Client, TritonkitClientError

# The error, words of its message as a pattern, and what to do.
Refusal = tuple[type[TritonkitClientError], str, Callable[[Client], object]]


def assert_refused(client: Client, refusal: Refusal) -> None:
    """It is exactly this error, and says so."""
    kind, words, call = refusal
    with pytest.raises(TritonkitClientError, match=words) as caught:
        call(client)
    assert type(caught.value) is kind
