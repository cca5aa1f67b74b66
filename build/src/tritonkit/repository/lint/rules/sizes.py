"""Execution by prepared sizes: the parameters of `tritonkit_onnxruntime`, and what convolutions lose without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import backends
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem, Severity
from tritonkit.repository.lint.registry import TRITONKIT, Context, rule

BATCH_SIZES = "batch_sizes"
CUDA_GRAPHS = "cuda_graphs"
PADDING = "padding"
PARAMETERS = (BATCH_SIZES, CUDA_GRAPHS, PADDING)
OFF = "off"  # batches run as they come
_DECISION = "docs/decisions/0013"
_GPU, _AUTO = pb.ModelInstanceGroup.KIND_GPU, pb.ModelInstanceGroup.KIND_AUTO
_IMAGE = "build build/Dockerfile, which adds it to NVIDIA's image, and name that image"


def parameter(model: Model, name: str) -> str | None:
    """The text of a parameter of a model that onnxruntime runs; None where it is not given."""
    parameters = model.config.parameters
    if model.served.backend not in backends.ONNX or name not in parameters:
        return None
    return str(parameters[name].string_value)


def parameter_line(model: Model, name: str) -> int | None:
    """Where it stands."""
    return model.line(("parameters", name), "value", "string_value")


def increasing(sizes: Sequence[object]) -> bool:
    """Whether they are whole numbers from 1 on, each above the one before."""
    numbers = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool)]
    return len(numbers) == len(sizes) > 0 and numbers == sorted(set(numbers)) and numbers[0] > 0


def batch_sizes(text: str) -> tuple[int, ...] | None:
    """The prepared sizes, none where they are off; None where the text is no list of sizes."""
    if text.strip() == OFF:
        return ()
    words = [word.strip() for word in text.split(",")]
    sizes = tuple(int(word) for word in words if word.isascii() and word.isdigit())
    return sizes if len(sizes) == len(words) and increasing(sizes) else None


def _changing(model: Model, *, gpu_nodes: bool) -> Severity | None:
    """How sure it is that the shape of batches changes on a GPU; None where it does not."""
    signature = model.signature
    groups = [group.kind for group in model.config.instance_group]
    automatic = not groups or _AUTO in groups  # a GPU where there is one
    if signature is None or not (automatic or _GPU in groups):
        return None
    if signature.max_batch_size > 1:
        completed = model.config.max_batch_size == 0  # then Triton turns dynamic batching on, too
        gathered = model.config.HasField("dynamic_batching") or completed
        return "warning" if gathered and (_GPU in groups or gpu_nodes) else "info"
    variable = any(-1 in (tensor.dims or ()) for tensor in signature.inputs.values())
    return "info" if variable else None


@rule(
    "TK130",
    "convolutions-prepared-anew",
    "warning",
    "convolutions on a GPU by NVIDIA's onnxruntime backend, in batches of changing size",
    source=f"{_DECISION}, docs/decisions/0005",
)
def convolutions_prepared_anew(model: Model, context: Context) -> Iterator[Problem]:
    """onnxruntime's CUDA provider prepares every convolution for one shape, and does so again whenever the next batch
    has another size than the last one, also a size that it has seen. Measured on an H200 for EfficientNet-Lite0: 187 ms
    a batch whose size changes, 1.2 ms for batches of one image. `dynamic_batching` changes the size all the time, and
    `preferred_batch_size` does not keep it from doing so. What helps: `tritonkit build --target cuda`, which writes the
    backend `tritonkit_onnxruntime` with `batch_sizes` (each batch is padded up to a prepared size); or the `tensorrt`
    accelerator, whose engines take a range of sizes. Where clients choose the sizes, or the instance group does not say
    that it is for a GPU, it is a remark. The rule is about NVIDIA's image: on the embedded server tritonkit's backend
    serves the name `onnxruntime` too, and prepares sizes by itself.
    """
    accelerators = model.config.optimization.execution_accelerators.gpu_execution_accelerator
    severity = _changing(model, gpu_nodes=context.options.gpu is not None)
    if model.served.backend != backends.ONNXRUNTIME or severity is None:
        return
    if any(accelerator.name == "tensorrt" for accelerator in accelerators):
        return
    for graph in model.graphs:
        if graph.convolutions:
            count = f"{graph.convolutions} convolutions" if graph.convolutions > 1 else "a convolution"
            yield Problem(
                f"{count} and batches of changing size: on a GPU NVIDIA's onnxruntime backend prepares convolutions "
                "anew at every change (measured on an H200: 187 ms a batch instead of 1.2)",
                "build it with `tritonkit build --target cuda` (backend tritonkit_onnxruntime with batch_sizes), or "
                "use the tensorrt accelerator; preferred_batch_size does not help",
                model.line("dynamic_batching") or model.line("max_batch_size"),
                severity=severity,
            )  # fmt: skip


@rule(
    "TK131",
    "sizes-invalid",
    "error",
    "batch_sizes that are no increasing sizes up to max_batch_size, or cuda_graphs other than 0 or 1",
    enforced_by=TRITONKIT,
    source=_DECISION,
)
def sizes_invalid(model: Model, _: Context) -> Iterator[Problem]:
    """`batch_sizes` lists the batch sizes at which the model runs, as `1,2,4,8`: whole numbers from 1 on, each above
    the one before, none above `max_batch_size`. `off` runs batches as they come. `cuda_graphs` is 1, which records each
    size once and replays it, or 0.
    """
    text, graphs = parameter(model, BATCH_SIZES), parameter(model, CUDA_GRAPHS)
    sizes = batch_sizes(text) if text is not None else ()
    largest = model.signature.max_batch_size if model.signature else None
    line = parameter_line(model, BATCH_SIZES)
    if text is not None and not text.strip():
        yield Problem(
            "parameter batch_sizes is empty, which counts as not given", "give sizes, or off", line, None, "warning"
        )
    elif sizes is None:
        yield Problem(f"parameter batch_sizes is {text!r}", "give increasing sizes such as 1,2,4,8, or off", line)
    elif sizes and largest == 0 and sizes != (1,):
        yield Problem("batch_sizes are given and max_batch_size is 0", "set max_batch_size, or remove them", line)
    elif sizes and largest and sizes[-1] > largest:
        yield Problem(
            f"batch_sizes go up to {sizes[-1]}, max_batch_size is {largest}",
            f"leave out what is above, or set max_batch_size: {sizes[-1]}", line,
        )  # fmt: skip
    if graphs is not None and graphs.strip() not in {"0", "1"}:
        yield Problem(f"parameter cuda_graphs is {graphs!r}", "give 1 or 0", parameter_line(model, CUDA_GRAPHS))


@rule("TK132", "sizes-below-batch", "warning", "batch_sizes that do not reach max_batch_size", source=_DECISION)
def sizes_below_batch(model: Model, _: Context) -> Iterator[Problem]:
    """A batch above the largest prepared size is run in pieces, one after another: Triton gathers more requests than
    one run takes.
    """
    text = parameter(model, BATCH_SIZES)
    sizes = batch_sizes(text) if text is not None else None
    if not sizes or model.signature is None:
        return
    largest = model.signature.max_batch_size
    if sizes[-1] < largest:
        yield Problem(
            f"the largest of batch_sizes is {sizes[-1]}, max_batch_size is {largest}: larger batches run in pieces",
            f"add {largest}, or set max_batch_size: {sizes[-1]}", parameter_line(model, BATCH_SIZES),
        )  # fmt: skip


@rule(
    "TK136",
    "sizes-ignored",
    "warning",
    "parameters of tritonkit's backend on NVIDIA's onnxruntime backend",
    source=_DECISION,
)
def sizes_ignored(model: Model, context: Context) -> Iterator[Problem]:
    """`batch_sizes`, `cuda_graphs` and `padding` are read by tritonkit's backend. On the embedded server it serves the
    name `onnxruntime` too; in an image that name is NVIDIA's C++ backend, which runs the model without them. Checked
    with `--image`.
    """
    if context.options.image is None or model.served.backend != backends.ONNXRUNTIME:
        return
    for name in PARAMETERS:
        if parameter(model, name) is not None:
            yield Problem(
                f"parameter {name} does nothing in the image: there backend onnxruntime is NVIDIA's",
                f'say backend: "{backends.TRITONKIT_ONNXRUNTIME}" and {_IMAGE}', parameter_line(model, name),
            )  # fmt: skip


@rule(
    "TK137",
    "backend-not-in-image",
    "warning",
    "a model of tritonkit_onnxruntime for an image that has no such backend",
    source=_DECISION,
)
def backend_not_in_image(model: Model, context: Context) -> Iterator[Problem]:
    """NVIDIA's images have no backend `tritonkit_onnxruntime`, and Triton refuses a model whose backend is not there.
    The image of build/Dockerfile is NVIDIA's with that backend added. Where `--image` names a release only, such as
    26.09-py3, it may be either, so this is a remark.
    """
    options = context.options
    if options.image is None or options.origin == "other" or model.served.backend != backends.TRITONKIT_ONNXRUNTIME:
        return
    yield Problem(
        f"NVIDIA's images have no backend {backends.TRITONKIT_ONNXRUNTIME}", _IMAGE, model.line("backend"),
        severity=None if options.origin == "nvidia" else "info",
    )  # fmt: skip
