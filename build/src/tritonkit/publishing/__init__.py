"""Model repositories in object stores and shared folders: published whole, fetched whole, rolled back, pruned."""

from tritonkit.publishing.fetch import Fetched, fetch
from tritonkit.publishing.keeping import GRACE_MINUTES, Version, prune, roll_back, versions
from tritonkit.publishing.places import Place, parse
from tritonkit.publishing.publish import Published, publish
from tritonkit.publishing.shelf import Shelf

__all__ = [
    "GRACE_MINUTES", "Fetched", "Place", "Published", "Shelf", "Version", "fetch", "parse", "prune", "publish",
    "roll_back", "versions",
]  # fmt: skip
