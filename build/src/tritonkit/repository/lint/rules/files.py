"""The files that a configuration needs: there, readable, whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tritonkit.repository.lint import backends, graphs
from tritonkit.repository.lint.contents import Model, entries, is_file
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import CORE, ONNXRUNTIME, Context, rule

# Backends that serve a model from one file of a known name; others may need several, or none.
_ONE_FILE = backends.ONNX | {backends.PYTHON, backends.OPENVINO, backends.PYTORCH, backends.TENSORFLOW}
_PYTORCH_FILES = ("model.pt", "model.pt2", "model.py")
_BACKEND = "the model's backend"


@rule(
    "TK011",
    "model-file-missing",
    "error",
    "a version has no model file",
    enforced_by=_BACKEND,
)
def model_file_missing(model: Model, _: Context) -> Iterator[Problem]:
    """Each backend looks for one file in a version's folder: `model.onnx`, `model.py`, `model.pt`, `model.xml`, or the
    `default_model_filename`. The Python backend of Triton 24.10 does not report a missing model.py at all: the load
    never returns, and with it the server never becomes ready. Plans are TK090's.
    """
    served = model.served
    if served.backend not in _ONE_FILE or model.config.runtime:
        return
    for number in model.loaded:
        folder = model.version(number)
        names = _PYTORCH_FILES if served.filename == "model.pt" else (served.filename,)
        if not any(_serves(folder / name, served.backend) for name in names):
            listing = _listing(folder)
            yield Problem(
                f"version {number} has no {served.filename}; {listing}",
                f"put {served.filename} there, or say default_model_filename",
                model.line("default_model_filename"), path=folder,
            )  # fmt: skip


def _serves(path: Path, backend: str) -> bool:
    """Whether the file is there; only Python's must be a file, others may be folders of that name."""
    return is_file(path) if backend == backends.PYTHON else backends.exists(path)


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in entries(folder))
    return f"it has {', '.join(names[:4])}{' and more' if len(names) > 4 else ''}" if names else "it is empty"


@rule(
    "TK012",
    "model-file-unusable",
    "error",
    "a model file is empty, a Git LFS pointer, or no ONNX",
    enforced_by=_BACKEND,
)
def model_file_unusable(model: Model, _: Context) -> Iterator[Problem]:
    """After a clone without `git lfs pull`, a model file is 130 bytes of text that name the real one. Interrupted
    copies leave empty or cut files. For ONNX the whole file is read; of others only the beginning.
    """
    for path, graph in model.read_graphs.items():
        if isinstance(graph, str):
            yield _unusable(path, graph)
    for number in model.loaded:
        path = model.version(number) / model.served.filename
        if model.served.backend not in backends.ONNX and model.served.filename and is_file(path):
            why = graphs.unusable(path)
            if why and not (why == "is empty" and model.served.backend not in _ONE_FILE):
                yield _unusable(path, why)


def _unusable(path: Path, why: str) -> Problem:
    fix = "run `git lfs pull`" if "LFS" in why else "export or copy it again"
    return Problem(f"the model file {why}", fix, path=path)


@rule(
    "TK013",
    "weights-missing",
    "error",
    "an ONNX file's external weights are missing or cut",
    enforced_by=ONNXRUNTIME,
)
def weights_missing(model: Model, _: Context) -> Iterator[Problem]:
    """A model above 2 GB keeps its weights in files beside the graph, which names them by relative paths. They must be
    in the version's folder under that name; copying only model.onnx is the usual mistake.
    """
    for graph in model.graphs:
        for external in graph.externals:
            if not is_file(external.path):
                yield Problem(
                    f"the graph's weights file {external.path.name} is missing",
                    f"copy {external.path.name} beside {graph.path.name}", path=graph.path,
                )  # fmt: skip
            elif (size := external.path.stat().st_size) < external.size:
                yield Problem(
                    f"the weights file has {size:,} bytes, {graph.path.name} reads {external.size:,} of it",
                    "copy it again", path=external.path,
                )  # fmt: skip


@rule("TK014", "labels-missing", "error", "label_filename names no file, or one output has two", enforced_by=CORE)
def labels_missing(model: Model, _: Context) -> Iterator[Problem]:
    """`label_filename` is relative to the model's folder, not to the version's. Triton refuses the model without it,
    and one with two files for the same output.
    """
    labelled = Counter(output.name for output in model.config.output if output.label_filename)
    for name, count in labelled.items():
        if count > 1:
            yield Problem(f"output {name!r} has {count} files of labels", "keep one", model.line("output"))
    for index, output in enumerate(model.config.output):
        if output.label_filename and not is_file(model.directory / output.label_filename):
            yield Problem(
                f"output {output.name!r} has its labels in {output.label_filename}, which is not there",
                f"put it beside {model.config_path.name}, or remove label_filename",
                model.line(("output", index), "label_filename"),
            )


@rule(
    "TK015",
    "labels-count",
    "warning",
    "another number of labels than classes",
    source="docs/protocol/extension_classification.md",
)
def labels_count(model: Model, _: Context) -> Iterator[Problem]:
    """The classification extension answers with the label of each index. Triton does not count: with too few labels
    some answers have none, and a count that differs often means that the file belongs to another model.
    """
    for index, output in enumerate(model.config.output):
        path = model.directory / output.label_filename
        classes = output.dims[-1] if output.dims else -1
        if not output.label_filename or classes < 1 or not is_file(path):
            continue
        text = path.read_bytes()
        count = text.count(b"\n") + (not text.endswith(b"\n") and text != b"")
        if count != classes:
            yield Problem(
                f"output {output.name!r} has {classes} classes and {output.label_filename} {count} lines",
                "give one label a line for each class", model.line(("output", index), "label_filename"),
            )  # fmt: skip


@rule(
    "TK016",
    "unreadable",
    "error",
    "a file that Triton needs is there and cannot be read",
    enforced_by=CORE,
    always=True,
)
def unreadable(model: Model, _: Context) -> Iterator[Problem]:
    """A link to nothing is refused, as the configuration or as anything else in the model's folder; deeper it does no
    harm. A folder of that name, as a bind mount of a missing file makes it, ends the whole
    server: Triton 24.10 dies of an uncaught exception. A file that is no text, or far too large, is another file's
    content under this name.
    """
    if model.config_problem:
        yield Problem(f"the configuration {model.config_problem}", "put the configuration's text there")
    for link in model.dead_links:
        yield Problem(
            f"{link.name!r} is a link to nothing: Triton loads no model whose folder has one",
            "remove the link, or put back what it points to",
            path=link,
        )
