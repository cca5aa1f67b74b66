"""Splits the callers of a model between its versions: by shares, and always the same version for a key. No I/O."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._protocol.errors import InvalidInput

_PARAMETER = "traffic"  # in config.pbtxt, as `tritonkit build` writes it: "1:90,2:10"


@dataclass(frozen=True)
class Traffic:
    """The shares of a model's versions.

    Example::

        traffic = Traffic.from_config(client.config("classifier"))
        out = client.infer("classifier", image=batch, model_version=traffic.version(user_id))

    Attributes:
        model: The model's name. Two models split their callers independently of each other.
        shares: Version to share, in any unit; a version with 0 gets nobody.
    """

    model: str
    shares: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})

    def __post_init__(self) -> None:
        """Check the shares.

        Raises:
            InvalidInput: A share is negative or not a finite number, or no share is above 0.
        """
        for version, share in self.shares.items():
            if not isinstance(share, (int, float)) or not 0 <= share < math.inf:
                raise InvalidInput(
                    f"version {version!r} of model {self.model!r} has the share {share!r}", "use 0 or more"
                )
        if not any(share > 0 for share in self.shares.values()):
            raise InvalidInput(f"no version of model {self.model!r} has a share", 'for example {"1": 90, "2": 10}')

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Traffic:
        """Read the shares from a model's configuration; without any, the server chooses the version for everybody.

        Args:
            config: What `Client.config` returns.

        Raises:
            InvalidInput: The parameter ``traffic`` is not ``VERSION:SHARE,VERSION:SHARE``.
        """
        model = str(config.get("name", ""))
        text = str(config.get("parameters", {}).get(_PARAMETER, {}).get("string_value", ""))
        if not text:
            return cls(model)
        pairs = [part.partition(":") for part in text.split(",")]
        try:
            shares = {version.strip(): float(share) for version, _, share in pairs}
        except ValueError:
            raise InvalidInput(
                f"the parameter {_PARAMETER} of model {model!r} is {text!r}", 'write it as "1:90,2:10" in config.pbtxt'
            ) from None
        return cls(model, shares)

    def version(self, key: str | bytes | int) -> str:
        """The version for a caller; empty where the server is to choose.

        The same key gets the same version in every process. When shares change, only those callers change their
        version whose new version's share grew: weighted rendezvous hashing (Schindelhauer and Schomaker, 2005).

        Args:
            key: What tells callers apart: a user's or a session's id.
        """
        data = key if isinstance(key, bytes) else str(key).encode()
        chosen = ((self._distance(version, data) / share, version) for version, share in self.shares.items() if share)
        return min(chosen)[1]

    def _distance(self, version: str, key: bytes) -> float:
        """A number that is exponentially distributed over keys.

        Each version's number is divided by its share: the probability that it is the least one is its share of all.
        """
        digest = hashlib.blake2b(f"{self.model}\0{version}\0".encode() + key, digest_size=8).digest()
        uniform = ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52  # what a double holds, and neither 0 nor 1
        return -math.log(uniform)
