"""Model repositories in object stores and shared folders: published whole, fetched whole, rolled back, pruned."""

from tritonkit.publishing.destination import Destination
from tritonkit.publishing.fetch import Fetched, fetch
from tritonkit.publishing.locations import Place, parse
from tritonkit.publishing.publish import Published, publish
from tritonkit.publishing.version_history import GRACE_MINUTES, Version, prune, roll_back, versions

__all__ = [
    "GRACE_MINUTES",
    "Destination",
    "Fetched",
    "Place",
    "Published",
    "Version",
    "fetch",
    "parse",
    "prune",
    "publish",
    "roll_back",
    "versions",
]  # fmt: skip
