"""Which servers of this machine run on a repository, so that whoever changes it can say how they take that up.

Only servers that tritonkit started for this user are known: each leaves a record in its own folder, and takes it along.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

WORK = "tritonkit-server-"  # and the id of the process that started the server
_RECORD = "serving.json"
Control = Literal["watch", "poll", "explicit", "none"]


@dataclass(frozen=True)
class Neighbour:
    """A running server.

    Attributes:
        url: Its address for HTTP.
        control: What makes it load a changed model: ``watch`` (``tritonkit serve --watch``), Triton's own ``poll`` or
            ``explicit``, or nothing.
        packages: What its Python models find, each ``name==version``.
        models: Names of those that it serves; all of the repository if none is named.
    """

    url: str
    control: Control
    packages: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()

    def serves(self, names: Collection[str]) -> bool:
        """Whether any of these models is among those that it serves."""
        return not self.models or not self.models.isdisjoint(names)

    def advice(self, names: Sequence[str], repository: Path, packages: Collection[str] = ()) -> str:
        """How this server comes to serve new files of these models.

        Args:
            names: What a caller names: the models, or the ensembles around them.
            repository: Where they are.
            packages: What their Python needs, each ``name==version``.
        """
        if missing := sorted(set(packages) - self.packages):
            return (
                f"the server at {self.url} was started without {', '.join(missing)}: "
                f"`tritonkit install-server {repository}`, then start it again"
            )
        if self.control in {"watch", "poll"}:
            return f"the server at {self.url} takes it up by itself"
        if self.control == "explicit":
            calls = "\n".join(f"  curl -X POST {self.url}/v2/repository/models/{name}/load" for name in names)
            return f"the server at {self.url} takes it up when told to:\n{calls}"
        return (
            f"the server at {self.url} still serves what it loaded: start it again; "
            "`tritonkit serve --watch` takes up the next change by itself"
        )


def control(arguments: Sequence[str]) -> str:
    """The control mode that a server's arguments name; empty where they name none."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--model-control-mode":
            return value if equals else next(iter(arguments[place + 1 :]), "")
    return ""


def record(
    work: Path, repository: Path, url: str, arguments: Sequence[str], *, watch: bool,
    packages: Collection[str] = (), models: Collection[str] = (),
) -> None:  # fmt: skip
    """Write into a server's folder which repository, address and control mode it has."""
    mode = "watch" if watch else control(arguments) or "none"
    about = {
        "repository": str(repository.resolve()), "url": url, "control": mode,
        "packages": sorted(packages), "models": sorted(models),
    }  # fmt: skip
    (work / _RECORD).write_text(json.dumps(about), encoding="utf-8")


def find(repository: Path) -> list[Neighbour]:
    """The servers that run on a repository."""
    neighbours = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{WORK}*/{_RECORD}")):
        owner = path.parent.name.removeprefix(WORK).partition("-")[0]
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if owner.isdigit() and psutil.pid_exists(int(owner)) and about["repository"] == str(repository.resolve()):
            packages, models = frozenset(about.get("packages", ())), frozenset(about.get("models", ()))
            neighbours.append(Neighbour(about["url"], about["control"], packages, models))
    return neighbours
