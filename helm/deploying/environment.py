"""One file for each environment: where a release goes, and the chart's values there.

``deploy:`` is for `make deploy` and never reaches the chart, ``values:`` is what ``helm -f`` gets.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tritonkit.cli.arguments import closest, did_you_mean
from tritonkit.errors import InputError

FOLDER = Path(__file__).parents[1] / "environments"
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$")]  # helm: 53 characters of a DNS label


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Deploy(BaseModel):
    """Where it goes.

    Attributes:
        context: Context of the kubeconfig. Always named: the current one may be any cluster.
        namespace: Namespace of the release; it has to exist.
        release: Name of the release.
        publish: Where the repository is published; empty where `values.models` names models that are there already.
        repository: The model repository, from the project's folder.
        endpoint_url: An S3-compatible store that is not Amazon's.
        gpu_nodes: ``present``: nodes must be there now. ``onDemand``: a cluster autoscaler adds them.
        pool_labels: Labels that else only a running node has (``nvidia.com/gpu.product``), with which the autoscaler's
            node pools are declared.
        timeout: Longest wait of helm, such as ``45m``; reckoned from the manifest if empty.
        kubernetes: Version to render for where no cluster answers, ``1.34``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_camel)

    context: Annotated[str, Field(min_length=1)]
    namespace: Name
    release: Name
    publish: str = ""
    repository: str = "model_repository"
    endpoint_url: str = ""
    gpu_nodes: Literal["present", "onDemand"] = "present"
    pool_labels: tuple[str, ...] = ()
    timeout: Annotated[str, Field(pattern=r"^(\d+[hms])*$")] = ""
    kubernetes: Annotated[str, Field(pattern=r"^1\.\d+$")] = "1.34"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    deploy: Deploy
    values: dict[str, Any] | None = None


@dataclass(frozen=True)
class Environment:
    """An environment: its name, its file, and what is in it."""

    name: str
    path: Path
    deploy: Deploy
    values: dict[str, Any]


def load(name: str) -> Environment:
    """The environment of a name, or in a file.

    Args:
        name: ``prod`` for ``helm/environments/prod.yaml``, or a path that ends in ``.yaml``.

    Raises:
        InputError: There is none, or something in it is wrong; the message names the key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no environment {name!r} ({path})", _hint(name)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {error}", "correct it") from error
    try:
        said = _File.model_validate(data if data is not None else {})
    except ValidationError as error:
        first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")  # may be what is missing
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        known = ", ".join(_camel(key) for key in Deploy.model_fields)
        fix = f"it has `deploy:` with {known}, and `values:` with the chart's values"
        if first["type"] == "string_type":
            fix = f'write it in quotes, as kubernetes: "1.34"; {fix}'
        keys = [_camel(key) for key in Deploy.model_fields] if len(first["loc"]) > 1 else list(_File.model_fields)
        near = closest(str(first["loc"][-1]), keys) if first["type"] == "extra_forbidden" else ""
        raise InputError(f"{path}: {where}: {first['msg']}{did_you_mean([near] if near else [])}", fix) from error
    return Environment(path.stem, path, said.deploy, said.values or {})


def _hint(name: str) -> str:
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1)
    return f"{f'did you mean {near[0]}? ' if near else ''}there are {', '.join(known)}; or name a file: ENV=my.yaml"
