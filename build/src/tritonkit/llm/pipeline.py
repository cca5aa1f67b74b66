"""Lays out language models: what the engine reads, the weights as links, and a passport.

Weights are hashed, with progress on the terminal, then linked where the filesystem allows it and copied once where it
does not: a copy that lies in the repository already is linked from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit import __version__, progress
from tritonkit.dependencies import sha256
from tritonkit.errors import RecipeError
from tritonkit.llm import chat, checks, tensorrt_llm, vllm
from tritonkit.llm.checks import Checked
from tritonkit.passport import Adapter, KvCache, LanguageModel, ModelPassport
from tritonkit.recipe import LanguageRecipe
from tritonkit.repository import config, layout, ownership

MOUNTED = "/models"  # where the chart's pods have the repository that they fetch
WEIGHTS = "weights"
ADAPTERS = "adapters"
# Files of a directory that no engine reads: other formats of the same weights, notes, what training left.
_OTHER = frozenset({".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".safetensors", ".md", ".png"})


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        models: What each model is, by its name: engine, longest context, weights, KV cache, notes.
        written: Names of the models whose folders are new or other than they were.
        kept: Paths in the repository of what tritonkit did not write and left where it was.
    """

    models: dict[str, LanguageModel]
    written: list[str]
    kept: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain data, as ``tritonkit build --json`` prints it."""
        models = {name: model.model_dump(exclude_unset=True) for name, model in self.models.items()}
        return {"models": models, "written": self.written, "kept": list(self.kept)}


def check(recipes: Sequence[LanguageRecipe], taken: Mapping[str, Path | None] | None = None) -> list[Checked]:
    """Hold each recipe against its directory.

    Args:
        recipes: The recipes.
        taken: Names of other models that are built beside them, with their recipes.

    Raises:
        TritonkitError: A recipe does not fit its directory, or two have the same name.
    """
    owner = dict(taken or {})
    for recipe in recipes:
        if recipe.name in owner:
            raise RecipeError(
                f"{owner[recipe.name]}, {recipe.path}: two recipes have the name {recipe.name!r}", "rename one of them"
            )
        owner[recipe.name] = recipe.path
    return [checks.check(recipe) for recipe in recipes]


def build(checked: Sequence[Checked], repository: Path, *, mounted: str = MOUNTED, overwrite: bool = False) -> Built:
    """Bring ``repository`` to what the recipes say.

    Args:
        checked: The recipes, of :func:`check`; other models in the repository stay.
        repository: A directory, made if it does not exist.
        mounted: Where the server that will run it has the repository, as an absolute path: engines take no other.
        overwrite: Replace configurations that were edited by hand.

    Raises:
        TritonkitError: Whatever is wrong; the repository is then as it was.
    """
    layout.check_place(repository)
    models = [_model(model, repository, mounted) for model in checked]
    new = [model.name for model in models if not layout.is_current(repository, [model])]
    if new:
        layout.write(repository, models, overwrite=overwrite)
    described = {model.recipe.name: language_model(model) for model in checked}
    return Built(described, new, layout.foreign(repository, models))


def language_model(checked: Checked) -> LanguageModel:
    """What a passport says of a model, and a later sizing reads."""
    return LanguageModel(
        engine=checked.recipe.engine,
        architecture=checked.directory.architecture,
        dtype=checked.dtype,
        quantization=checked.recipe.quantization or checked.directory.quantization or "none",
        max_model_len=checked.max_model_len,
        tensor_parallel_size=checked.recipe.tensor_parallel_size,
        parameters=checked.weights.parameters,
        checkpoint_bytes=checked.weights.checkpoint_bytes,
        weights_bytes=checked.weights_bytes,
        kv_cache=KvCache(**checked.kv_cache.as_json()),
        adapters={adapter.name: Adapter(rank=adapter.rank, base=adapter.base) for adapter in checked.adapters},
        notes=checked.notes,
    )


def _model(checked: Checked, repository: Path, mounted: str) -> layout.Model:
    recipe, version = checked.recipe, checked.recipe.number
    origins = {f"{version}/{WEIGHTS}/{name}": path for name, path in _directory_files(checked).items()}
    for adapter in checked.adapters:
        origins |= {f"{version}/{ADAPTERS}/{adapter.name}/{path.name}": path for path in adapter.files}
    digests = _hash(recipe.name, origins)
    home = PurePosixPath(mounted) / recipe.name / str(version)
    places = {adapter.name: str(home / ADAPTERS / adapter.name) for adapter in checked.adapters}
    files: dict[str, bytes] = {}
    if recipe.engine == "vllm":
        model_config = vllm.config(checked)
        files[f"{version}/{vllm.ARGUMENTS}"] = _json(vllm.arguments(checked, str(home / WEIGHTS)))
        if places:
            files[f"{version}/{vllm.ADAPTERS}"] = _json(places)
    else:
        model_config = tensorrt_llm.config(checked)
        files[f"{version}/{tensorrt_llm.ARGUMENTS}"] = tensorrt_llm.arguments(checked, str(home / WEIGHTS)).encode()
        files[f"{version}/model.py"] = tensorrt_llm.MODEL.read_bytes()
        if places:
            model_config.parameters[tensorrt_llm.ADAPTERS].string_value = json.dumps(places)
    for key, value in chat.parameters(checked.directory).items():
        model_config.parameters[key].string_value = value
    if recipe.served:
        model_config.version_policy.CopyFrom(pb.ModelVersionPolicy(specific={"versions": list(recipe.served)}))
    text = config.seal(text_format.MessageToString(model_config), recipe.path.name)
    passport = ModelPassport(
        tritonkit=__version__,
        model=recipe.name,
        version=version,
        recipe=recipe.as_json(),
        llm=language_model(checked).model_copy(update={"mounted": mounted}),
        sources={name: digests[name] for name in sorted(digests)},
    )
    links = {name: _nearest(repository / recipe.name, name, path, digests[name]) for name, path in origins.items()}
    return layout.Model(recipe.name, text, passport, version, links, files, digests)


def _directory_files(checked: Checked) -> dict[str, Path]:
    """The files of a directory that go along: its weights, and the small ones that an engine may read."""
    place = checked.directory.path
    small = [path for path in place.iterdir() if path.is_file() and path.suffix not in _OTHER and path.name[0] != "."]
    return {path.name: path for path in sorted({*small, *checked.weights.files})}


def _hash(name: str, origins: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of every file, read once."""
    total = sum(path.stat().st_size for path in origins.values())
    digests: dict[str, str] = {}
    done = 0
    with progress.steps(f"{name}: hash {_size(total)}", len(origins)) as steps:
        for place, path in origins.items():
            steps.next(f"{path.name}, {done * 100 // max(total, 1)} %")
            digests[place] = sha256(path)
            done += path.stat().st_size
    return digests


def _nearest(directory: Path, name: str, origin: Path, digest: str) -> Path:
    """Where to link a file from: the repository's own copy where that is the same, else its place, behind any link."""
    copy = directory / name
    listed = ownership.files_of(directory).get(name)
    if listed == digest and copy.is_file() and not copy.is_symlink() and copy.stat().st_size == origin.stat().st_size:
        return copy
    return origin.resolve()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
