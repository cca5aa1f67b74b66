"""Models of NVIDIA's FIL backend: forests of XGBoost, LightGBM, scikit-learn and cuML."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import forests, images
from tritonkit.repository.lint.contents import Model, entries
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.forests import parameters
from tritonkit.repository.lint.registry import FIL, FIL_CPP, Context, rule
from tritonkit.repository.lint.rules.releases import image_of
from tritonkit.server.backends.fil.forest_inference import FILES, INPUT, OUTPUT, SHAP_OUTPUT

_DOCS = "triton-inference-server/fil_backend, src/shared_state.h and docs/model_config.md"
_MODEL = "triton-inference-server/fil_backend, src/model.h and src/tl_model.h"
_BOOLEANS = ("is_classifier", "output_class", "predict_proba", "xgboost_allow_unknown_field")
_LAYOUTS = {"depth_first", "breadth_first", "layered", "layered_children_together"}
# Parameters of before 25.09, and what took their place.
_OLD = {
    "algo": "layout",
    "threads_per_tree": "chunk_size",
    "storage_type": "",
    "blocks_per_sm": "",
    "output_class": "is_classifier",
}
_TENSORS = {"input": INPUT, "output": OUTPUT}


def _serves(model: Model) -> bool:
    return model.served.backend == forests.BACKEND


def _classifies(model: Model) -> bool:
    values = parameters(model)
    return values.get("output_class", values.get("is_classifier")) == "true"


def _line(model: Model, name: str) -> int | None:
    return model.line(("parameters", name))


@rule("TK180", "forest-parameter", "error", "a FIL parameter that is missing or has no value of its kind",
      enforced_by=FIL, source=_DOCS)  # fmt: skip
def forest_parameter(model: Model, _: Context) -> Iterator[Problem]:
    """The backend reads `true` and `false` in no other spelling, needs `is_classifier` (called `output_class` before
    25.09), and a number for `threshold`. Without `model_type` it is `xgboost`, XGBoost's binary format of before 2.1.
    """
    if not _serves(model):
        return
    values = parameters(model)
    choices = {name: {"true", "false"} for name in _BOOLEANS} | {"model_type": set(FILES), "layout": _LAYOUTS}
    for name, known in choices.items():
        if name in values and values[name] not in known:
            yield Problem(
                f"parameter {name} is {values[name]!r}", f"one of {', '.join(sorted(known))}", _line(model, name)
            )
    if not {"is_classifier", "output_class"} & set(values):
        yield Problem(
            "the parameter is_classifier is missing, which the backend must have",
            'add parameters { key: "is_classifier" value { string_value: "true" } }, or "false" for a regression',
        )
    if _classifies(model) and not _is_number(values.get("threshold", "0.5")):
        yield Problem(
            f"parameter threshold is {values['threshold']!r}, no number", "say 0.5", _line(model, "threshold")
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@rule("TK181", "forest-file", "error", "a FIL model's file that is missing or not what model_type says",
      enforced_by=FIL, source=_MODEL)  # fmt: skip
def forest_file(model: Model, _: Context) -> Iterator[Problem]:
    """`model_type` says which file the backend looks for (`xgboost.ubj`, `xgboost.json`, `xgboost.model`, `model.txt`,
    `checkpoint.tl`), where `default_model_filename` names no other. A pickle of scikit-learn or cuML is to be converted
    to a checkpoint first; lint never loads one.
    """
    for read in forests.read(model):
        kind = forests.model_type(model)
        file_names = {path.name for path in entries(read.path.parent)}
        if read.file is None and not read.problem:
            near = next((name for name in file_names if name in FILES.values()), "")
            pickled = next((name for name in file_names if name.endswith((".pkl", ".pickle", ".joblib"))), "")
            fix = f"copy it there under that name, or say the model_type of {near}" if near else "copy it there"
            yield Problem(
                f"{read.path.parent.name}/{read.path.name} is not there, where model_type is {kind}",
                f"convert {pickled}: treelite.sklearn.import_model(…).serialize('checkpoint.tl')" if pickled else fix,
                _line(model, "model_type"),
            )  # fmt: skip
        elif read.file is not None and read.file.model_type != kind and kind != "xgboost":
            yield Problem(
                f"{read.path.name} is {read.file.model_type}, and model_type is {kind}",
                f"say model_type {read.file.model_type} and call the file {FILES[read.file.model_type]}",
                _line(model, "model_type"),
            )  # fmt: skip
        elif read.problem and kind != "xgboost":
            yield Problem(read.problem.replace(f"{read.path}", read.path.name), read.fix, path=read.path)


@rule("TK182", "forest-features", "error", "another number of inputs than the forest has features", enforced_by=FIL,
      source=_MODEL)  # fmt: skip
def forest_features(model: Model, _: Context) -> Iterator[Problem]:
    """The backend hands rows to the forest without looking at their width. With more columns than features every row
    but the first begins in the middle of another; with fewer the forest reads past the end. Neither is an error there;
    the embedded server refuses both.
    """
    for read in forests.read(model):
        for index, tensor in enumerate(model.config.input):
            dims = _columns(model, tensor)
            if read.shape and tensor.name == INPUT and dims != [read.shape.features] and -1 not in dims:
                yield Problem(
                    f"{INPUT} has dims {dims}, and {read.path.name} has {read.shape.features} features",
                    f"say dims: [{read.shape.features}], in the order of training",
                    model.line(("input", index), "dims"),
                )  # fmt: skip


def _columns(model: Model, tensor: pb.ModelInput | pb.ModelOutput) -> list[int]:
    dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
    return dims if model.config.max_batch_size > 0 else dims[1:]


@rule("TK183", "forest-outputs", "error", "another number of outputs than the forest answers with", enforced_by=FIL,
      source=_MODEL)  # fmt: skip
def forest_outputs(model: Model, _: Context) -> Iterator[Problem]:
    """A classifier without `predict_proba` answers with 1 number, its class; with it with one a class, and one of two
    classes with 1 number (class 1's probability) or with both. A regression answers with 1. The backend writes past the
    end of a narrower output, and leaves the rest of a wider one as it was.
    """
    for read in forests.read(model):
        if not read.shape:
            continue
        proba = parameters(model).get("predict_proba") == "true"
        widths = [1] if _classifies(model) and not proba else [read.shape.classes]
        widths += [2] if _classifies(model) and proba and read.shape.classes == 1 else []
        for index, tensor in enumerate(model.config.output):
            width = math.prod(_columns(model, tensor))
            if tensor.name == OUTPUT and width > 0 and width not in widths:
                yield Problem(
                    f"{OUTPUT} has dims {list(tensor.dims)}, and the forest answers with "
                    f"{' or '.join(map(str, widths))} numbers",
                    f"say dims: [{widths[0]}]" + ("" if proba else ", or predict_proba"),
                    model.line(("output", index), "dims"),
                )  # fmt: skip


@rule("TK184", "forest-tensors", "error", "an input or output of a FIL model that the backend does not have",
      enforced_by=FIL, source=_MODEL)  # fmt: skip
def forest_tensors(model: Model, _: Context) -> Iterator[Problem]:
    """The backend asks for `input__0` and `output__0` by name, in fp32, and has `treeshap_output` beside it. Triton
    loads a model with others, and its requests fail.
    """
    if not _serves(model):
        return
    for kind, name in _TENSORS.items():
        tensors = getattr(model.config, kind)
        for index, tensor in enumerate(tensors):
            line = model.line((kind, index), "name")
            if tensor.name not in {name, SHAP_OUTPUT if kind == "output" else name}:
                yield Problem(f"{kind} {tensor.name!r} is none of the backend's", f"call it {name}", line)
            elif tensor.data_type != pb.TYPE_FP32:
                dtype = pb.DataType.Name(tensor.data_type)
                yield Problem(f"{tensor.name} is {dtype}, and the backend computes in fp32", "say TYPE_FP32", line)
        if name not in {tensor.name for tensor in tensors} and not tensors:
            yield Problem(f"there is no {kind} {name}: the backend completes no configuration", f"declare {name}")


@rule(
    "TK185", "forest-threshold", "warning", "a threshold that a classifier lacks, or that decides nothing", source=_DOCS
)
def forest_threshold(model: Model, _: Context) -> Iterator[Problem]:
    """`threshold` decides between the two classes of a forest of one score, where `predict_proba` is not on. With
    several scores the largest wins; with probabilities nothing is decided. By its source the backend needs one of every
    classifier all the same, though its documentation has a default of 0.5; so 0.5 is no sign that anybody meant it.
    """
    values = parameters(model)
    if _serves(model) and _classifies(model) and "threshold" not in values:
        yield Problem(
            "a classifier has no parameter threshold; the documentation has a default of 0.5, the source has none",
            'add parameters { key: "threshold" value { string_value: "0.5" } }',
        )
    threshold = values.get("threshold", "0.5")
    if not _is_number(threshold) or float(threshold) == 0.5:
        return
    for read in forests.read(model):
        why = f"gives {read.shape.classes} scores" if read.shape and read.shape.classes > 1 else ""
        why = why or ("answers with probabilities" if values.get("predict_proba") == "true" else "")
        why = why or ("" if _classifies(model) else "is no classifier")
        if why:
            yield Problem(
                f"threshold is {threshold}, and the forest {why}", "set it to 0.5, or serve classes of one score",
                _line(model, "threshold"),
                severity="info",
            )  # fmt: skip


@rule("TK186", "forest-task", "warning", "a regression that is served as a classifier", source=_MODEL)
def forest_task(model: Model, _: Context) -> Iterator[Problem]:
    """With `is_classifier` and without `predict_proba` the backend makes 0 or 1 of each value. A regression asked for
    probabilities answers with its values, whatever they are called.
    """
    for read in forests.read(model):
        if not read.shape or read.shape.classifies:
            continue
        if _classifies(model):
            proba = parameters(model).get("predict_proba") == "true"
            yield Problem(
                f"{read.path.name} is a {read.shape.task}, and is_classifier is true",
                "say is_classifier false and leave predict_proba out", _line(model, "is_classifier"),
                severity="warning" if proba else None,
            )  # fmt: skip
        elif parameters(model).get("predict_proba") == "true":
            yield Problem(
                f"{read.path.name} is a {read.shape.task}, which has no probabilities", "leave predict_proba out",
                _line(model, "predict_proba"), severity="info",
            )  # fmt: skip


@rule("TK187", "forest-too-new", "error", "a forest's file that the image's treelite does not read",
      enforced_by=FIL_CPP, source="fil_backend, cmake/thirdparty/get_treelite.cmake at each release")  # fmt: skip
def forest_too_new(model: Model, context: Context) -> Iterator[Problem]:
    """Each image has one treelite. Files of XGBoost from 3.1 on have fields that treelite before 4.6 refuses (images up
    to 25.12), UBJSON is read from 24.10 on, and checkpoints of treelite 4 from 24.03 on.
    """
    image = image_of(model, context)
    if image is None:
        return
    for read in forests.read(model):
        since = images.forest_since(read.file.model_type, read.file.version) if read.file else None
        if read.file and since and image < since:
            written = f"{read.file.library} {read.file.version}".strip()
            yield Problem(
                f"{read.path.name} was written by {written}, and image {images.name(image)} has treelite "
                f"{images.treelite(image)}",
                f"use an image from {images.name(since)} on, or a checkpoint of it (convert: true in a recipe)",
                _line(model, "model_type"),
            )  # fmt: skip


@rule("TK188", "forest-parameter-release", "error", "a FIL parameter of another release than the image's",
      enforced_by=FIL_CPP, source=_DOCS)  # fmt: skip
def forest_parameter_release(model: Model, context: Context) -> Iterator[Problem]:
    """25.09 renamed `output_class` to `is_classifier`, `algo` to `layout` and `threads_per_tree` to `chunk_size`, and
    dropped `storage_type` and `blocks_per_sm`. Older images need `output_class`; newer ones still read that one, and
    pass over the others.
    """
    image = image_of(model, context)
    values = parameters(model)
    if not _serves(model):
        return
    if image and image < images.FIL_RENAMED and "output_class" not in values and "is_classifier" in values:
        yield Problem(
            f"image {images.name(image)} reads output_class, and not is_classifier",
            "say output_class too: images from 25.09 on read both", _line(model, "is_classifier"),
        )  # fmt: skip
    for name in values if image is None or image >= images.FIL_RENAMED else ():
        if name in _OLD:
            new = _OLD[name]
            yield Problem(
                f"the parameter {name} is one of images before 25.09", f"say {new}" if new else "remove it",
                _line(model, name), severity="info",
            )  # fmt: skip


@rule("TK189", "forest-one-vs-all", "warning", "probabilities of one class against all others", source=_MODEL)
def forest_one_vs_all(model: Model, _: Context) -> Iterator[Problem]:
    """For every forest of several classes `predict_proba` makes a softmax of the scores. LightGBM's `multiclassova`
    makes a probability of each score by itself, so that the answers are not LightGBM's. Their order is the same.
    """
    for read in forests.read(model):
        if read.postprocessor == "multiclass_ova" and parameters(model).get("predict_proba") == "true":
            yield Problem(
                f"{read.path.name} has one probability a class, each by itself; predict_proba makes a softmax of them",
                "serve classes, or train it with objective: multiclass", _line(model, "predict_proba"),
            )  # fmt: skip
