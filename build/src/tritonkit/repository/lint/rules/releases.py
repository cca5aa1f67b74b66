"""What a release of Triton lacks or does wrong, where the image is known: from ``--image`` or from the passport."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.errors import InputError
from tritonkit.repository.lint import images
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem, parse_image
from tritonkit.repository.lint.pbtxt import Node
from tritonkit.repository.lint.registry import CORE, Context, rule

_COMMON = "model_config.proto of triton-inference-server/common, release by release"
EMBEDDED: images.Image = (24, 10)  # of `tritonkit serve` (tritonkit.server.runtime)


def image_of(model: Model, context: Context) -> images.Image | None:
    """The image that will serve a model; None where nobody says."""
    if context.options.image is not None:
        return context.options.image
    try:
        return parse_image(model.passport.data.image) if model.passport.data.image else None
    except InputError:
        return None


def _speaks(model: Model, context: Context) -> bool:
    """Whether this model is the one at which something about the whole server is said, once."""
    names = [other.name for other in context.repository.models.values() if other.usable and not other.stray]
    return context.options.image is None or model.name == min(names)


@rule(
    "TK147",
    "field-too-new",
    "error",
    "a field of the configuration that the image's Triton does not know",
    enforced_by=CORE,
    source=_COMMON,
)
def field_too_new(model: Model, context: Context) -> Iterator[Problem]:
    """A Triton refuses the whole configuration for one field that its schema does not have, even at its default, and
    its log says no more than that it failed to read the file. Where the image is not known, fields that are newer than
    the embedded server (24.10) are a remark: `tritonkit serve` cannot load the model.
    """
    image = image_of(model, context)
    for field, since, line in _newer(model.outline, pb.ModelConfig.DESCRIPTOR, image or EMBEDDED):
        reason = f"image {images.name(image)} is older" if image else f"`tritonkit serve` has {images.name(EMBEDDED)}"
        yield Problem(
            f"the field {field} is there from Triton {images.name(since)} on; {reason}",
            f"remove it, or use an image from {images.name(since)} on", line, severity=None if image else "info",
        )  # fmt: skip


def _newer(node: Node, message: Descriptor, image: images.Image) -> Iterator[tuple[str, images.Image, int]]:
    for name, nodes in node.fields.items():
        field = message.fields_by_name.get(name)
        if field is None:
            continue
        since = images.FIELDS.get(f"{message.full_name.removeprefix('inference.')}.{name}")
        if since is not None and since > image:
            yield name, since, nodes[0].line if nodes else node.line
        elif field.message_type is not None:
            for child in nodes:
                yield from _newer(child, field.message_type, image)


@rule("TK150", "image-unknown", "warning", "an image that lint knows nothing of")
def image_unknown(model: Model, context: Context) -> Iterator[Problem]:
    """What an image's onnxruntime loads, and which fields its Triton knows, is in a table of releases. For an image
    outside of it these questions are open: what lint does not find may still be wrong.
    """
    image = image_of(model, context)
    if image is None or images.OLDEST <= image <= images.NEWEST or not _speaks(model, context):
        return
    yield Problem(
        f"image {images.name(image)} is not known here, where {images.name(images.OLDEST)} to "
        f"{images.name(images.NEWEST)} are: whether it loads these graphs and fields is not checked"
        + ("" if image < images.OLDEST else f" beyond what {images.name(images.NEWEST)} does"),
        "name an image that is known, or try the models in this one", path=model.directory,
    )  # fmt: skip


@rule(
    "TK151",
    "cancellation-ends-server",
    "info",
    "an image whose server can die of a cancelled gRPC request",
    source="triton-inference-server/server#7368, #7840, #8034, #8078",
)
def cancellation_ends_server(model: Model, context: Context) -> Iterator[Problem]:
    """From 23.10 on Triton's gRPC front end sees that a caller cancelled, or that its deadline passed. Up to 24.11 the
    server can end with signal 11 when that meets the answer of the request, and up to 25.03 when it meets its
    beginning. Short deadlines and hedged requests make it likely; HTTP is not concerned.
    """
    image = image_of(model, context)
    if image is None or not images.CANCELLATION <= image < images.CANCELLATION_FIXED or not _speaks(model, context):
        return
    answered = "answered or " if image < images.CANCELLATION_ANSWER_FIXED else ""
    yield Problem(
        f"image {images.name(image)}: a gRPC request that is cancelled, or whose deadline passes, just as it is "
        f"{answered}begun can end the server with signal 11",
        f"use an image from {images.name(images.CANCELLATION_FIXED)} on, or HTTP, or deadlines far above the p99",
        path=model.directory,
    )  # fmt: skip
