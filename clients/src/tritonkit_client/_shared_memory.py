"""placeholder"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SharedMemory:
    """x"""


class Arena:
    """x"""

    def __init__(self, wanted: SharedMemory) -> None: ...
    def infer(self, *a: Any) -> Any: ...
    def closing(self, *_: Any) -> Any:
        return ()
