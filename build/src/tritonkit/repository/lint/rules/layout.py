"""Folders, names and versions: what Triton makes of a directory before it opens a model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tritonkit.repository.lint import backends
from tritonkit.repository.lint.contents import Model, is_dead_link
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import CORE, Context, rule
from tritonkit.repository.model_directory import RESERVED, is_version

# What people write for a backend, and what it is called.
_NICKNAMES = {
    "onnx": "onnxruntime", "onnxruntime_onnx": "onnxruntime", "onnx_runtime": "onnxruntime", "ort": "onnxruntime",
    "trt": "tensorrt", "tensorrt_plan": "tensorrt", "tensor_rt": "tensorrt", "torch": "pytorch", "libtorch": "pytorch",
    "pytorch_libtorch": "pytorch", "py": "python", "python3": "python", "tf": "tensorflow", "ov": "openvino",
}  # fmt: skip


@rule(
    "TK001",
    "stray-folder",
    "error",
    "a folder in the repository that is no model",
    enforced_by=CORE,
    source="docs/user_guide/model_repository.md of triton-inference-server/server",
    always=True,
)
def stray_folder(model: Model, context: Context) -> Iterator[Problem]:
    """Triton takes every folder in a repository for a model, hidden ones too.

    One that is none (`.git`, `.ipynb_checkpoints`, `__pycache__`, `lost+found` of a fresh volume) fails to load,
    and by default a server with a model that fails exits. A link to nothing keeps every model from loading. Files at
    the top of a repository do no harm. With `--model-control-mode=explicit` only the named models load, so the folder
    is left alone.
    """
    if not model.stray or context.options.flag("model-control-mode")[-1:] == ["explicit"]:
        return
    if is_dead_link(model.directory):
        yield Problem(
            f"{model.name!r} is a link to nothing: Triton cannot list the repository and loads no model at all",
            "remove the link, or put back what it points to",
            path=model.directory,
        )
    else:
        yield Problem(
            f"the folder {model.name!r} has no {model.config_path.name} and no version folder: Triton takes it for a "
            "model and does not start",
            "move it out of the repository",
            path=model.directory,
        )


@rule(
    "TK002",
    "config-unparsable",
    "error",
    "config.pbtxt is not what Triton can parse",
    enforced_by=CORE,
    source="triton-inference-server/server#3584",
    always=True,
)
def config_unparsable(model: Model, _: Context) -> Iterator[Problem]:
    """Triton reads config.pbtxt with protobuf's text format and refuses an unknown field, a value of the wrong kind,
    a comma before a closing bracket or a byte order mark; its log then says only that it failed to read the file.

    Lint parses with Triton's own schema, so it names the line and the nearest field that exists. A field that a
    newer Triton has and this schema has not is reported too.
    """
    mistake = model.mistake
    if mistake is not None and not mistake.two_schedulers:
        near = f"did you mean {mistake.near}?" if mistake.near else "correct that line"
        if "${" in (model.text or "") and "$" in mistake.message:
            near = "fill the template's placeholders (${…}) in: for TensorRT-LLM's, tools/fill_template.py does it"
        yield Problem(mistake.message, near, mistake.line)


@rule(
    "TK003",
    "two-schedulers",
    "error",
    "more than one of dynamic_batching, sequence_batching, ensemble_scheduling",
    enforced_by=CORE,
    source="docs/user_guide/model_configuration.md, Scheduling And Batching",
    always=True,
)
def two_schedulers(model: Model, _: Context) -> Iterator[Problem]:
    """A model has one scheduler: the three are members of one `oneof`, and a second one makes the file unparsable.

    Sequences can still be batched: `sequence_batching` with the strategy `oldest` forms batches dynamically.
    """
    mistake = model.mistake
    if mistake is not None and mistake.two_schedulers:
        yield Problem(
            mistake.message, "keep one; sequence_batching { oldest { ... } } also forms batches", mistake.line
        )


@rule(
    "TK004",
    "name-differs",
    "error",
    "the configuration's name is not the folder's",
    enforced_by=CORE,
)
def name_differs(model: Model, _: Context) -> Iterator[Problem]:
    """The folder's name is the model's name. `name` in config.pbtxt may be left out, but must not say another."""
    name = model.config.name
    if name and name != model.name:
        yield Problem(
            f"the configuration calls the model {name!r}, its folder {model.name!r}",
            f"remove `name`, or rename the folder to {name}",
            model.line("name"),
        )


@rule(
    "TK005",
    "no-version",
    "error",
    "there is no version folder",
    enforced_by=CORE,
    source="triton-inference-server/server#3623",
    always=True,
)
def no_version(model: Model, _: Context) -> Iterator[Problem]:
    """A model needs at least one folder whose name is a number, an ensemble too although it has no file to put there.

    Git keeps no empty folders, so an ensemble's `1/` is lost in a clone; a file such as `.gitkeep` in it helps.
    Folders named `v1` or `01` do not count.
    """
    if model.versions or model.stray or any(_misread(name) for name in model.folders):
        return
    fix = (
        "put an empty folder 1 there, with a .gitkeep in it for git"
        if model.ensemble
        else "put the model in a folder 1"
    )
    yield Problem(f"{model.name} has no version folder", fix, path=model.directory)


@rule(
    "TK006",
    "version-policy-unmet",
    "error",
    "version_policy asks for versions that do not exist",
    enforced_by=CORE,
    source="docs/user_guide/model_configuration.md, Version Policy",
)
def version_policy_unmet(model: Model, _: Context) -> Iterator[Problem]:
    """If the policy leaves no version to load, the model is refused. If some of several named versions are missing,
    Triton says so in its log and loads the others; that is a warning here, as a client that asks for one of the
    missing gets an error.
    """
    policy = model.config.version_policy
    if not model.versions or not model.config.HasField("version_policy"):
        return
    line = model.line("version_policy")
    versions = ", ".join(map(str, model.versions))
    missing = [version for version in policy.specific.versions if version not in model.versions]
    if not model.loaded:
        yield Problem(f"version_policy leaves no version to load; there are {versions}", "name one of these", line)
    elif missing:
        names = ", ".join(map(str, missing))
        yield Problem(
            f"version_policy names {names}, there are {versions}",
            "add the folders, or drop them from the policy", line, severity="warning",
        )  # fmt: skip


@rule("TK007", "version-ignored", "warning", "a folder that looks like a version and is none to Triton")
def version_ignored(model: Model, _: Context) -> Iterator[Problem]:
    """Triton ignores `01` (a leading zero) and `v1` (no number) with a line in its log, and serves an older version."""
    for name in model.folders:
        if name not in RESERVED and re.fullmatch(r"0\d+|v(er(sion)?)?[-_.]?\d+", name):
            yield Problem(
                f"Triton ignores the folder {name!r}", f"call it {int(re.sub(r'[^0-9]', '', name))}",
                path=model.directory / name,
            )  # fmt: skip


@rule(
    "TK008",
    "version-misread",
    "error",
    "a folder whose name begins with a number",
    enforced_by=CORE,
    always=True,
)
def version_misread(model: Model, _: Context) -> Iterator[Problem]:
    """Triton reads folder names with C's stoll, which stops at the first character that is no digit: `2_backup` is
    version 2 to it. It then looks for that version in a folder `2`, which is not there, and the load fails; with the
    Python backend it never returns. A backup beside its own version (`1` and `1_old`) does no harm.
    """
    read = {number: name for name in model.folders if (number := _misread(name)) is not None}
    for number in model.chosen(sorted({*model.versions, *read})):
        if number not in model.versions:
            yield Problem(
                f"Triton takes the folder {read[number]!r} for version {number}, and finds no folder '{number}'",
                "rename it so that it does not begin with a number, or move it out of the model's folder",
                path=model.directory / read[number],
            )


def _misread(name: str) -> int | None:
    """The version that Triton reads from a name that is not one."""
    match = re.match(r"-?\d+", name)
    if match is None or is_version(name) or re.match(r"0.", name):
        return None
    return int(match[0])


@rule(
    "TK009",
    "backend-unknown",
    "error",
    "neither the configuration nor the files say which backend serves it",
    enforced_by=CORE,
)
def backend_unknown(model: Model, _: Context) -> Iterator[Problem]:
    """Without `backend` or `platform`, Triton looks for a file that it knows (`model.onnx`, `model.plan`, `model.pt`,
    `model.py`, `model.xml`) in the folder whose name sorts first. That folder may be another than the version:
    `.ipynb_checkpoints` sorts before `1`, and `10` before `2`.
    """
    if model.served.backend or model.served.platform or not model.folders or model.config.platform:
        return
    if model.config.HasField("ensemble_scheduling"):
        return
    first = min(model.folders)
    known = ", ".join(backends.DEFAULT_FILES.values())
    yield Problem(
        f"nothing says which backend serves it: no `backend`, and none of {known} in {first}/",
        'say backend: "...", for example backend: "onnxruntime"',
        model.line("default_model_filename"),
        path=None if model.text is not None else model.directory,
    )


@rule(
    "TK010",
    "platform-mismatch",
    "error",
    "a platform that does not exist, or another backend's",
    enforced_by=CORE,
)
def platform_mismatch(model: Model, _: Context) -> Iterator[Problem]:
    """`platform` is the older word for `backend` and has values of its own (`onnxruntime_onnx`, `tensorrt_plan`,
    `pytorch_libtorch`, `ensemble`). Triton refuses others, and a pair that does not belong together. A `backend` that
    it does not know is looked for as a library; where the name is a common misspelling, lint warns.
    """
    config = model.config
    meant = backends.backend_of_platform(config.platform)
    known = {*backends.DEFAULT_FILES, backends.TENSORFLOW} - {backends.PYTHON, backends.OPENVINO}
    near = _NICKNAMES.get(config.backend or config.platform, config.platform)
    if config.platform and not config.backend and not meant:
        yield Problem(
            f"there is no platform {config.platform!r}", f'say backend: "{near}" instead', model.line("platform")
        )
    elif config.platform and config.backend and (config.backend in known or meant == backends.ENSEMBLE):
        if meant != config.backend:
            yield Problem(
                f"platform {config.platform!r} is not the backend {config.backend!r}'s", "remove `platform`",
                model.line("platform"),
            )  # fmt: skip
    elif config.backend in _NICKNAMES and not backends.exists(model.directory / f"libtriton_{config.backend}.so"):
        yield Problem(
            f"there is no backend {config.backend!r} in NVIDIA's images", f'say backend: "{near}"',
            model.line("backend"), severity="warning",
        )  # fmt: skip
