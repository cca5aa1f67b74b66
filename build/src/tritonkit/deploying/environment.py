"""One file for each environment: where a release goes, and the chart's values there.

``deploy:`` is for `tritonkit deploy` and never reaches the chart, ``values:`` is what ``helm -f`` gets.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tritonkit.cli.arguments import closest, did_you_mean
from tritonkit.errors import InputError
from tritonkit.recipe import Target
from tritonkit.recipe.problems import in_words, line
from tritonkit.unique_keys import UniqueKeyLoader

FOLDER = Path("helm/environments")  # of a checkout
# Where `make build TARGET=…` puts models.
REPOSITORIES: dict[Target, str] = {
    "cpu": "model_repository", "cuda": "model_repository.cuda", "tensorrt": "model_repository.tensorrt"
}  # fmt: skip
Object = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$")]  # helm: 53 characters of a DNS label


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Deploy(BaseModel):
    """Where a release goes.

    Attributes:
        context: Context of the kubeconfig. Always named: the current one may be any cluster.
        namespace: Namespace of the release; it has to exist.
        release: Name of the release.
        publish: Where the repository is published; empty where `values.models` names models that are there already.
        chart: Its folder or packed file, from the project's folder, or ``oci://REGISTRY/PATH/tritonkit:VERSION``;
            ``helm/tritonkit`` if empty.
        repository: The model repository, from the project's folder; that of :func:`target` if empty.
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
    chart: str = ""
    repository: str = ""
    endpoint_url: str = ""
    gpu_nodes: Literal["present", "onDemand"] = "present"
    pool_labels: tuple[str, ...] = ()
    timeout: Annotated[str, Field(pattern=r"^(\d+[hms])*$")] = ""
    kubernetes: Annotated[str, Field(pattern=r"^1\.\d+$")] = "1.34"


# What stands behind a key, by its place in the file.
_EXAMPLES: dict[tuple[str, ...], str] = {
    ("deploy",): "{context: prod-gpu, namespace: inference, release: triton}",
    ("deploy", "context"): "a context of the kubeconfig, such as prod-gpu",
    ("deploy", "namespace"): "a name such as inference, at most 53 small letters, digits and -",
    ("deploy", "release"): "a name such as triton, at most 53 small letters, digits and -",
    ("deploy", "publish"): "s3://BUCKET/PATH",
    ("deploy", "chart"): "a folder such as helm/tritonkit, or oci://registry.example.com/charts/tritonkit:0.1.0",
    ("deploy", "repository"): "a folder such as model_repository",
    ("deploy", "endpointUrl"): "https://minio.example.org",
    ("deploy", "timeout"): "a time such as 45m or 1h30m",
    ("deploy", "kubernetes"): 'a version in quotes, such as "1.34"',
    ("values",): "{replicas: 2}",
}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    deploy: Deploy
    values: dict[str, Any] | None = None


@dataclass(frozen=True)
class Environment:
    """An environment: its name, how commands name it, its file, and what is in it."""

    name: str
    argument: str
    path: Path
    deploy: Deploy
    values: dict[str, Any]


def load(name: str, project: Path) -> Environment:
    """The environment of a name, or in a file.

    Args:
        name: ``prod`` for ``helm/environments/prod.yaml``, or a path that ends in ``.yaml``.
        project: The folder that has ``helm/environments``.

    Raises:
        InputError: The environment does not exist, or a key in it is wrong; the message names the key.
    """
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else project / FOLDER / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=UniqueKeyLoader)
    except FileNotFoundError:
        raise InputError(f"there is no environment {name!r} ({path})", _hint(name, project / FOLDER)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {error}", "correct it at that line") from error
    known = ", ".join(_camel(key) for key in Deploy.model_fields)
    fix = f"it has `deploy:` with {known}, and `values:` with the chart's values"
    if not isinstance(data, dict):
        raise InputError(f"{path}: {'it is empty' if data is None else 'it is no mapping of keys to values'}", fix)
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        problems = [f"{path}:{line(node, item['loc'])}: {_problem(item)}" for item in error.errors()]
        raise InputError("\n".join(problems), fix) from error
    return Environment(path.stem, shlex.quote(name), path, file.deploy, file.values or {})


def _problem(item: Mapping[str, Any]) -> str:
    """A wrong or missing key with what belongs there."""
    place = item["loc"]
    where = ".".join(str(part) for part in place)
    if item["type"] != "extra_forbidden":
        return f"{where}: {in_words(item, place, _EXAMPLES)}"
    keys = [_camel(key) for key in Deploy.model_fields] if len(place) > 1 else list(_File.model_fields)
    near = closest(str(place[-1]), keys)
    return f"{where}: unknown key{did_you_mean([near] if near else [])}"


def target(environment: Environment) -> Target:
    """The target of the environment's pods: what models are built for.

    Raises:
        InputError: Its variants have different targets, so no repository of one target serves all.
    """
    values = environment.values
    variants = values.get("variants") or {"": None}
    targets = {_target(values, variant or {}) for variant in variants.values()}
    if len(targets) > 1:
        raise InputError(
            f"{environment.path}: its variants run models of different targets: {', '.join(sorted(targets))}",
            "set deploy.repository to a repository that has them all, and models.names in each variant",
        )
    return targets.pop()


def _target(values: Object, variant: Object) -> Target:
    def chosen(section: str, key: str, default: str) -> str:
        layers = (layer.get(section) for layer in (variant, values))
        named = (layer.get(key) for layer in layers if isinstance(layer, dict))  # the chart's schema judges the rest
        return str(next((value for value in named if value), default))

    if chosen("accelerator", "kind", "gpu") == "cpu":
        return "cpu"
    # Unquoted, `off` is YAML's word for false.
    return "cuda" if chosen("engineBuild", "mode", "off") == "off" else "tensorrt"


def repository(environment: Environment) -> str:
    """The model repository, relative to the project: the named one, or the one that `make build` lays out.

    Raises:
        InputError: No repository is named, and the variants have different targets.
    """
    return environment.deploy.repository or REPOSITORIES[target(environment)]


def build_command(target: Target) -> str:
    """The command that lays out a target's models: with make if that is how this process was started."""
    if "MAKELEVEL" in os.environ:
        return f"`make build TARGET={target}`"
    return f"`tritonkit build --all --target {target} --repository {REPOSITORIES[target]}`"


def command(environment: Environment, verb: str = "deploy", *, apply: bool = False) -> str:
    """The command that deploys this environment or rolls it back: with make if that is how this process was started."""
    if "MAKELEVEL" in os.environ:
        return f"make {verb} {'APPLY=1 ' if apply else ''}ENV={environment.argument}"
    return f"tritonkit deploy {environment.argument}{' --apply' if apply else ''}{' --rollback' * (verb == 'rollback')}"


def _hint(name: str, folder: Path) -> str:
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not known:
        return f"name its file, such as {name}.yaml; names alone are looked up in {FOLDER} of a checkout"
    near = difflib.get_close_matches(name, known, n=1)
    return f"{f'did you mean {near[0]}? ' if near else ''}there are {', '.join(known)}; or name a file, such as my.yaml"
