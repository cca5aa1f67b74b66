"""A model's passport: ``passport.json`` in its directory, read, and written with the keys in one order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError

from tritonkit.errors import InputError
from tritonkit.passport.reading import first_mistake, parse_readable, read_object
from tritonkit.passport.sections import (
    DeviceMemory,
    Forest,
    ForestParity,
    Gate,
    LanguageModel,
    Measurement,
    Queue,
    Section,
    Tf32,
    Tuning,
)

FIRST = 1  # the version of passports that name none


def _listing(files: object) -> dict[str, str]:
    """Path to SHA-256; a list of another kind lists nothing that is known to be ours."""
    return {str(path): str(digest) for path, digest in files.items()} if isinstance(files, dict) else {}


class ModelPassport(Section):
    """What is known about a model in a repository. Keys stand in the file in the order of these fields.

    Attributes:
        tritonkit: The version that built it.
        model: Its name.
        kind: ``python``, ``tokenizer`` or ``ensemble`` beside a model; empty for a model.
        of: The recipe's model, of what stands beside it.
        packages: What a Python model imports: each ``name==version``.
        version: Of the model.
        target: ``cpu``, ``cuda`` or ``tensorrt``; empty where that is not known.
        precision: The one that is served; empty where there is none.
        forced: The precision was named, whatever the gate says.
        tuned: The recipe's ``batching`` names the precision.
        recipe: What it was built from, as plain data (:func:`tritonkit.recipe.as_json`).
        graph_sha256: Of the graph that is served.
        exported_sha256: Of the export that it was made from.
        made_from: Distributions that the export depended on: name to version.
        parity: How the export compares with its source.
        memory: Of one instance on the GPU that built it; None where none was there.
        cpu_features: The graph needs a CPU with one of them.
        fallback: The configuration for nodes where no plan fits; empty where there is none.
        image: The Triton image that will serve it; empty where nobody says.
        files: Path to SHA-256 of what was written with it; None for tritonkit up to 0.1, which listed none.
    """

    tritonkit: str = ""
    model: str = ""
    kind: str = ""
    of: str = ""
    function: str = ""
    packages: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    text: dict[str, Any] | None = None
    tokenizer_sha256: str = ""
    version: int = FIRST
    target: str = ""
    precision: str = ""
    forced: bool = False
    tuned: bool = False
    recipe: dict[str, Any] | None = None
    forest: Forest | None = None
    llm: LanguageModel | None = None
    sources: dict[str, str] = Field(default_factory=dict)
    graph_sha256: str = ""
    exported_sha256: str = ""
    made_from: dict[str, str] = Field(default_factory=dict)
    parity: ForestParity | tuple[Measurement, ...] | None = None
    gate: Gate | None = None
    queue: Queue | None = None
    tuning: Tuning | None = None
    memory: DeviceMemory | None = None
    tf32: Tf32 | None = None
    cpu_features: tuple[str, ...] = ()
    fallback: str = ""
    image: str = ""
    files: Annotated[dict[str, str] | None, BeforeValidator(_listing)] = None

    _source: dict[str, Any] | None = PrivateAttr(None)

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str | Path = "the passport") -> ModelPassport:
        """The passport that plain data holds, every known key of it.

        Args:
            data: A JSON object.
            where: What an error calls it.

        Raises:
            InputError: A key has another kind of value.
        """
        try:
            passport = cls.model_validate(data)
        except ValidationError as error:
            raise InputError(
                f"{where}: {first_mistake(error)}",
                "it was edited, or written by another version: build the model again",
            ) from error
        return passport._of(data)

    @classmethod
    def parse_readable(cls, data: Mapping[str, Any]) -> ModelPassport:
        """The passport that plain data holds, without the keys that cannot be read: a stranger's may hold anything."""
        return parse_readable(cls, data)._of(data)

    def _of(self, data: Mapping[str, Any]) -> ModelPassport:
        self._source = dict(data)
        return self

    @property
    def instance_bytes(self) -> int:
        """Device memory of one instance; 0 where the build did not measure it."""
        return self.memory.instance_bytes if self.memory else 0

    def as_json(self) -> dict[str, Any]:
        """Plain data: what was read, to the letter, or the fields that were set."""
        return self.model_dump(exclude_unset=True) if self._source is None else dict(self._source)

    def to_text(self, files: Mapping[str, str] | None = None) -> str:
        """The file's text.

        Args:
            files: SHA-256 of what is written with it, instead of what it lists; None: as it is.
        """
        listing = {} if files is None else {"files": dict(sorted(files.items()))}
        return json.dumps(self.as_json() | listing, indent=2) + "\n"

    def is_same_build(self, other: ModelPassport) -> bool:
        """Whether both say the same, whatever files they list."""
        return bool(_plain(self.as_json() | {"files": None}) == _plain(other.as_json() | {"files": None}))


def read(path: Path) -> ModelPassport | None:
    """A model's passport; None where the file is not there, or an empty object.

    Raises:
        InputError: It is no JSON object, or a key has another kind of value.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no JSON, perhaps cut short: {error}", "build the model again, or copy it again"
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is no passport: it holds no mapping", "build the model again")
    return ModelPassport.parse(data, path) if data else None


def find(path: Path) -> ModelPassport | None:
    """The passport in a file; None where there is none that tritonkit could have written."""
    data = read_object(path)
    return ModelPassport.parse_readable(data) if "model" in data else None


def _plain(data: Mapping[str, Any]) -> Any:
    """Plain data as a file gives it back: tuples as lists, keys as text."""
    return json.loads(json.dumps(data))
