"""One line of what was looked at: what it is, how it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "unchecked", "missing"]


@dataclass(frozen=True)
class Check:
    """A finding.

    Attributes:
        name: What was looked at, in a word or two.
        state: ``missing`` keeps a release from being deployed; ``note`` and ``unchecked`` do not.
        text: How it is, as a sentence.
        fix: What to do; empty if nothing.
    """

    name: str
    state: State
    text: str
    fix: str = ""


def missing(checks: Iterable[Check]) -> list[Check]:
    """Those that keep a release from being deployed."""
    return [check for check in checks if check.state == "missing"]
