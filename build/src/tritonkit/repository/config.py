"""Recipe to ``config.pbtxt``, through Triton's own protobuf.

The text begins with a checksum of itself, so that an edit by hand is recognised and never overwritten silently.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit import store
from tritonkit.errors import RecipeError
from tritonkit.recipe import Recipe, Serving, Target, TensorSpec
from tritonkit.repository.model_directory import LABELS
from tritonkit.samples import Sample

# What runs a CUDA model by prepared sizes; NVIDIA's own backend cannot (docs/decisions/0013).
SIZED_BACKEND = "tritonkit_onnxruntime"
_BACKENDS: dict[Target, str] = {"cpu": "onnxruntime", "cuda": SIZED_BACKEND, "tensorrt": "tensorrt"}
# onnxruntime's default, EXHAUSTIVE, tries every algorithm at each batch size that it meets first: with dynamic batching
# requests then wait 0.7 to 2.4 s (docs/decisions/0005).
CONV_SEARCH = "HEURISTIC"
# onnxruntime's default takes the next power of two whenever it needs more memory: a third more, measured on an H200 for
# EfficientNet-Lite0's sizes (docs/decisions/0014).
ARENA = "kSameAsRequested"
TRAFFIC = "traffic"  # the parameter by which clients choose a version: "1:90,2:10"; Triton does not read it
_HEADER = "# Written by tritonkit from the recipe {recipe}; change that, not this.\n# sha256 of the rest: {digest}\n"
_HEADER_PATTERN = re.compile(r"\A# Written by tritonkit .*\n# sha256 of the rest: ([0-9a-f]{64})\n")


def make(
    recipe: Recipe,
    target: Target,
    warmup: Sample,
    plans: Mapping[str, str] | None = None,
    *,
    sized: bool = True,
) -> str:
    """The text of ``config.pbtxt``.

    Args:
        recipe: What to serve and how to batch it.
        target: What runs it: onnxruntime on a CPU or on CUDA, or TensorRT.
        warmup: The sample whose raw bytes lie in the model's ``warmup`` folder, one file an input.
        plans: For TensorRT: compute capability to the file name of its engine.
        sized: For CUDA: False leaves it to NVIDIA's own backend, which any Triton image has and which knows no
            prepared sizes.
    """
    config = build(recipe, target, sized=sized)
    for capability, name in (plans or {}).items():
        config.cc_model_filenames[capability] = name
    _add_warmup(config, recipe, warmup)
    return seal(text_format.MessageToString(config), recipe.path.name)


def check_numbers(recipe: Recipe, target: Target) -> None:
    """Refuse a number by itself where nothing can serve one: without batches, by TensorRT.

    NVIDIA's backend compares the configuration's dims with the engine's, and no configuration has an empty shape.

    Raises:
        RecipeError: An input or output has ``dims: []``, and ``max_batch_size`` is 0.
    """
    for name, spec in (*recipe.inputs.items(), *recipe.outputs.items()):
        if target == "tensorrt" and not recipe.max_batch_size and not spec.dims:
            raise RecipeError(
                f"{recipe.path}: {name!r} is a number by itself (dims: []), which TensorRT's backend does not serve",
                "give it dims: [1] in the graph and in the recipe, or build for --target cuda",
            )


def build(recipe: Recipe, target: Target, *, sized: bool = True) -> pb.ModelConfig:
    """The configuration, but for what lies beside it: engines and the warm-up's sample."""
    config = pb.ModelConfig(name=recipe.name, backend=_BACKENDS[target] if sized else "onnxruntime")
    for name, spec in recipe.inputs.items():
        _set_shape(config.input.add(name=name, data_type=tensor_type(spec)), spec, recipe)
    for name, output in recipe.outputs.items():
        labels = labels_filename(recipe, name) if output.labels else ""
        _set_shape(config.output.add(name=name, data_type=tensor_type(output), label_filename=labels), output, recipe)
    set_batching(config, recipe, target)
    if recipe.served:
        config.version_policy.specific.versions.extend(recipe.served)
    if recipe.traffic:
        shares = ",".join(f"{version}:{share:g}" for version, share in sorted(recipe.traffic.items()))
        config.parameters[TRAFFIC].string_value = shares
    if target == "cuda" and sized:
        config.default_model_filename = store.GRAPH
        # Tensors in a client's CUDA shared memory reach the backend where they are.
        config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = "no"
    if target == "cuda":
        cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters["cudnn_conv_algo_search"] = CONV_SEARCH
        if sized:
            cuda.parameters["arena_extend_strategy"] = ARENA
        if sized or not recipe.tf32:  # on is onnxruntime's default, and an older one may not know the option
            cuda.parameters["use_tf32"] = str(int(recipe.tf32))
    return config


def set_batching(config: pb.ModelConfig, recipe: Recipe, target: Target) -> None:
    """Replace the batching in a configuration by what the recipe's ``batching`` says."""
    serving = recipe.serving(target)
    config.max_batch_size = serving.max_batch_size
    del config.instance_group[:]
    kind = pb.ModelInstanceGroup.KIND_CPU if target == "cpu" else pb.ModelInstanceGroup.KIND_GPU
    config.instance_group.add(count=serving.instances, kind=kind)
    config.ClearField("dynamic_batching")
    if serving.max_batch_size > 1 or serving.bounded:  # without batches it is a queue with bounds
        _add_batching(config, serving)
    if target == "cpu":
        config.parameters["intra_op_thread_count"].string_value = str(serving.threads)
    if config.backend == SIZED_BACKEND:
        _add_sizes(config, recipe, serving)


def pads(serving: Serving) -> bool:
    """Whether requests of different lengths share a batch, for a recipe that says how they are padded."""
    return bool(serving.batch_sizes) and serving.max_batch_size > 1


def padding_of(recipe: Recipe) -> dict[str, Any]:
    """The parameter ``padding``: what each padded dimension is filled up to, where, and with what.

    ``axis`` counts in the configuration's ``dims``, which have no batch dimension.
    """
    return {
        dimension: {
            "sizes": list(bounds.padded_sizes),
            "inputs": {
                name: {"axis": recipe.inputs[name].dims.index(dimension), "value": value}
                for name, value in bounds.pad.items()
            },
            "outputs": {
                name: {"axis": output.dims.index(dimension)}
                for name, output in recipe.outputs.items()
                if dimension in output.dims
            },
        }
        for dimension, bounds in recipe.shapes.items()
        if bounds.pad
    }


def labels_filename(recipe: Recipe, output: str) -> str:
    """``labels.txt`` for a model with one labelled output, else a file for each."""
    labelled = [name for name, spec in recipe.outputs.items() if spec.labels]
    return LABELS if len(labelled) == 1 else f"labels_{filename(output)}.txt"


def filename(tensor: str) -> str:
    """A tensor's name as the name of a file: graphs have names with slashes."""
    return quote(tensor, safe="")


def parse(text: str) -> pb.ModelConfig:
    """The configuration that a text describes.

    Raises:
        google.protobuf.text_format.ParseError: It is no model configuration.
    """
    return text_format.Parse(text, pb.ModelConfig())


def seal(body: str, recipe_name: str) -> str:
    """``body`` under the header that :func:`is_ours` recognises."""
    return _HEADER.format(recipe=recipe_name, digest=hashlib.sha256(body.encode()).hexdigest()) + body


def is_ours(text: str) -> bool:
    """Whether tritonkit wrote this text and nobody has changed it since."""
    match = _HEADER_PATTERN.match(text)
    return match is not None and hashlib.sha256(text[match.end() :].encode()).hexdigest() == match[1]


def _add_batching(config: pb.ModelConfig, serving: Serving) -> None:
    config.dynamic_batching.max_queue_delay_microseconds = (
        serving.max_queue_delay_us if serving.max_batch_size > 1 else 0
    )
    if serving.preferred_batch_size:
        config.dynamic_batching.preferred_batch_size.append(serving.preferred_batch_size)
    if not serving.bounded:
        return
    policy = config.dynamic_batching.default_queue_policy
    policy.timeout_action = pb.ModelQueuePolicy.REJECT
    policy.default_timeout_microseconds = serving.queue_timeout_ms * 1000
    policy.allow_timeout_override = True  # a client with less patience says so in its request
    policy.max_queue_size = serving.max_queue_size


def _add_sizes(config: pb.ModelConfig, recipe: Recipe, serving: Serving) -> None:
    """The sizes that a GPU is prepared for, and how requests are padded up to them."""
    parameters = config.parameters
    for name in ("batch_sizes", "cuda_graphs", "padding"):
        parameters.pop(name, None)
    if serving.max_batch_size or not serving.batch_sizes:  # a request without batch dimension is a size by itself
        parameters["batch_sizes"].string_value = ",".join(map(str, serving.batch_sizes)) or "off"
    elif any(not spec.dims for spec in (*recipe.inputs.values(), *recipe.outputs.values())):
        parameters["batch_sizes"].string_value = "off"  # a prepared size has the shapes of the configuration
    parameters["cuda_graphs"].string_value = str(int(serving.cuda_graphs))
    padding = padding_of(recipe) if pads(serving) else {}
    if padding:
        parameters["padding"].string_value = json.dumps(padding)
    padded = {name for dimension in padding.values() for name in dimension["inputs"]}
    for tensor in config.input:
        tensor.allow_ragged_batch = tensor.name in padded


def _add_warmup(config: pb.ModelConfig, recipe: Recipe, warmup: Sample) -> None:
    # With a batch of 0, Triton skips it. A count of 0 is once, as 1 is; but the JSON of a protobuf leaves a 0 out, and
    # PyTriton's client wants one (KeyError: 'count', release 0.7.0).
    request = config.model_warmup.add(name="real_sample", batch_size=1, count=1)
    for name, spec in recipe.inputs.items():
        tensor = request.inputs[name]
        tensor.data_type = tensor_type(spec)
        tensor.dims.extend(warmup[name].shape or (1,))
        tensor.input_data_file = filename(name)


def tensor_type(spec: TensorSpec) -> int:
    """A tensor's type as ``config.pbtxt`` has it."""
    return int(pb.DataType.Value(spec.type.triton))


def _set_shape(tensor: pb.ModelInput | pb.ModelOutput, spec: TensorSpec, recipe: Recipe) -> None:
    """Dims of a tensor; a number by itself is ``[1]`` on the wire, as Triton allows no empty shape.

    Without batches the backend gives the graph its number: Triton refuses to take the dimension away by ``reshape``.
    """
    if spec.dims:
        tensor.dims.extend(-1 if isinstance(dim, str) else dim for dim in spec.dims)
    else:
        tensor.dims.append(1)
        if recipe.max_batch_size:
            tensor.reshape.SetInParent()
