"""Faulty calls and their errors, for tests of more than one server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tritonkit_client import Client, TritonkitClientError

# The error, a pattern for its message, and the call.
Refusal = tuple[type[TritonkitClientError], str, Callable[[Client], object]]


def assert_refused(client: Client, refusal: Refusal) -> None:
    """Check that a call raises exactly this error, with this message."""
    kind, words, call = refusal
    with pytest.raises(TritonkitClientError, match=words) as caught:
        call(client)
    assert type(caught.value) is kind
