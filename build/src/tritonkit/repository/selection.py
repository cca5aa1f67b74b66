"""A folder of links to some of a repository's models: it serves these alone, and the repository does not change."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tritonkit.errors import InputError


def link(models: Iterable[str], repository: Path, place: Path) -> None:
    """Make ``place`` a repository of links to models.

    A link leads to the name of a model's folder, so it stays right when a build puts another folder in its place.

    Args:
        models: Their names.
        repository: Where they are.
        place: Does not exist yet.

    Raises:
        InputError: ``repository`` is no directory, or has no such model.
    """
    if not repository.is_dir():
        raise InputError(f"{repository} is not a directory", "name a model repository; `tritonkit build` makes one")
    names = sorted(set(models))
    for name in names:
        if not (repository / name).is_dir():
            raise InputError(
                f"{repository} has no model {name}", f"`tritonkit build RECIPE --repository {repository}` makes it"
            )
    place.mkdir()
    for name in names:
        (place / name).symlink_to(repository.absolute() / name)
