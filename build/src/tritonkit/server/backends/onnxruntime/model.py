"""tritonkit's ONNX Runtime backend for Triton: batches at prepared sizes, with CUDA graphs on a GPU.

Under the name ``tritonkit_onnxruntime`` it serves CUDA repositories, on the embedded server and in the image
(docs/decisions/0013). On the embedded server it also serves ``backend: "onnxruntime"``: the same ``config.pbtxt`` and
``model.onnx`` run unchanged on the C++ backend of Triton's image, so every setting has the C++ backend's name and
meaning. It runs in the server's own environment (see docs/decisions/0002) and imports nothing of tritonkit.
"""

import json
import locale
import os
import sys
import time
from pathlib import Path

locale.setlocale(locale.LC_ALL, "C.UTF-8")  # the stub starts in ASCII, whatever the environment says
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Triton puts the model's folder there, not the backend's
from batch_execution import DirectExecution, Sequences, StallGuard, open_execution, read_sizes  # noqa: E402

# onnxruntime's names of the tensor types that Triton has.
TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
# `optimization.graph.level` as the C++ backend reads it; unset means all.
BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# Parameters of the CUDA provider that the C++ backend takes outside `execution_accelerators`, and their numbers.
DEPRECATED_CUDA_PARAMETERS = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "gpu_mem_limit": {},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
    "do_copy_in_default_stream": {},
}
DEFAULT_GRAPH_FILE = "model.onnx"
AUTO_MAX_BATCH_SIZE = 4  # the server's own --backend-config default-max-batch-size


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Fill in the inputs, outputs and batching that a configuration leaves out, from the graph."""
        config = auto_complete_model_config
        fields = config.as_dict()
        if fields["input"] and fields["output"]:
            return config
        session = open_session(_graph_of_this_stub(fields), ort.SessionOptions(), ["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        size = fields["max_batch_size"]
        if size == 0 and not fields["input"] and all(t.shape and not isinstance(t.shape[0], int) for t in tensors):
            size = AUTO_MAX_BATCH_SIZE
            config.set_max_batch_size(size)
            if "sequence_batching" not in fields and "ensemble_scheduling" not in fields:
                config.set_dynamic_batching()
        sequences = Sequences(fields.get("sequence_batching", {}))
        of_batcher = {entry["name"] for entry in (*sequences.inputs, *sequences.outputs)}
        for tensor in session.get_inputs():
            if tensor.name not in of_batcher:
                config.add_input(_described(tensor, batched=size > 0))
        for tensor in session.get_outputs():
            if tensor.name not in of_batcher:
                config.add_output(_described(tensor, batched=size > 0))
        return config

    def initialize(self, args):
        """Open the graph that this instance serves, and prepare its sizes."""
        config = json.loads(args["model_config"])
        self.name = args["model_instance_name"]
        graph = Path(args["model_repository"], args["model_version"], graph_file(config))
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        options, execution_providers = session_options(config), providers(config, device)
        self.sequences = Sequences(config["sequence_batching"]) if "sequence_batching" in config else None
        try:
            sizes = read_sizes(config, on_gpu=device is not None)
            if isinstance(sizes, str):
                self._open_direct(config, open_session(graph, options, execution_providers), sizes)
            else:
                self._open_sized(config, graph, sizes, options, device, execution_providers)
        except (ValueError, MemoryError, RuntimeError) as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self.output_names = self.execution.output_names
        self.on_gpu = device is not None
        # What an output without dimensions is called on the wire: a configuration has no empty shape.
        self.number_shapes = {output["name"]: [int(dim) for dim in output["dims"]] for output in config["output"]}
        self.guard = StallGuard()

    def _open_direct(self, config, session, reason):
        _check_signature(config, session)
        numbers = {tensor.name for tensor in session.get_inputs() if not tensor.shape and config["max_batch_size"] == 0}
        self.execution = DirectExecution(session, numbers)
        if reason:
            pb_utils.Logger.log_info(f"{self.name}: batches run as they come: {reason}")

    def _open_sized(self, config, graph, sizes, options, device, execution_providers):
        start = time.monotonic()
        cuda_options = execution_providers[0][1] if device is not None else {}
        self.execution = open_execution(
            graph, sizes, options, device, cuda_options, inspect=lambda session: _check_sized(config, session)
        )
        pb_utils.Logger.log_info(f"{self.name}: {_report(sizes, self.execution.facts, time.monotonic() - start)}")

    def execute(self, requests):
        """Run one batch; a request that the graph rejects fails by itself."""
        self.guard.begin()
        responses = self._answers(requests) if self.sequences is None else self._sequence_answers(requests)
        self.guard.finish()
        return responses

    def _sequence_answers(self, requests):
        # Those of no sequence, that ask for nothing, only fill the slots that are free, with chance for inputs.
        filling = [not request.correlation_id() and not request.requested_output_names() for request in requests]
        answers = iter(self._answers([request for request, fills in zip(requests, filling, strict=True) if not fills]))
        return [pb_utils.InferenceResponse([]) if fills else next(answers) for fills in filling]

    def _answers(self, requests):
        try:
            return self._run(requests)
        except Exception as error:
            if len(requests) == 1:
                return [_refusal(error)]
        return [self._run_alone(request) for request in requests]

    def _run(self, requests):
        answers = self._outputs(requests)
        return [self._response(request, outputs) for request, outputs in zip(requests, answers, strict=True)]

    def _outputs(self, requests):
        inputs = [self._inputs(request) for request in requests]
        if self.sequences is None:
            return self.execution.run(inputs)
        of_sequence = [(request.correlation_id(), request.flags()) for request in requests]
        for tensors, (sequence, flags) in zip(inputs, of_sequence, strict=True):
            tensors |= self.sequences.before(sequence, flags, tensors)
        answers = self.execution.run(inputs) if inputs else []
        for outputs, (sequence, flags) in zip(answers, of_sequence, strict=True):
            self.sequences.after(sequence, flags, dict(zip(self.output_names, outputs, strict=True)))
        return answers

    def _run_alone(self, request):
        """One request's answer, in memory that those of the others leave alone: all are sent together."""
        try:
            answers = self._outputs([request])
        except Exception as error:
            return _refusal(error)
        return self._response(request, [output.copy() for output in answers[0]])

    def _inputs(self, request):
        return {tensor.name(): self._array(tensor) for tensor in request.inputs()}

    def _array(self, tensor):
        if self.on_gpu and not tensor.is_cpu():
            return self.execution.device_tensor(tensor.to_dlpack())
        array = tensor.as_numpy()
        return _decoded(array) if array.dtype == object else array

    def _response(self, request, outputs):
        names = self.output_names
        outputs = [
            output if output.shape else output.reshape(self.number_shapes[name])
            for name, output in zip(names, outputs, strict=True)
        ]
        if len(names) > 1:  # Triton refuses a request for none
            requested = request.requested_output_names()
            outputs = [output for name, output in zip(names, outputs, strict=True) if name in requested]
            names = [name for name in names if name in requested]
        return pb_utils.InferenceResponse(list(map(_tensor, names, outputs)))


def _report(sizes, facts, seconds):
    """One line for the log: what was prepared, how it runs, and the memory that it takes."""
    count = len(sizes.batches)
    for dimension in sizes.padding:
        count *= len(dimension.sizes)
    parts = [f"{count} sizes prepared in {seconds:.1f} s: batches of {', '.join(map(str, sizes.batches))}"]
    parts += [f"{dimension.name} {', '.join(map(str, dimension.sizes))}" for dimension in sizes.padding]
    if "device" in facts:
        graphs = (
            "one CUDA graph each" if facts["graphs"] else f"without CUDA graphs: {facts.get('why_no_graphs', 'off')}"
        )
        graphs += f", {facts['sessions']} sessions" if facts["sessions"] > 1 else ""
        mib = {name: facts[f"{name}_bytes"] / 2**20 for name in ("context", "session", "sizes")}
        parts.append(
            f"{graphs}; on {facts['device']} context {mib['context']:.0f}, weights {mib['session']:.0f}, "
            f"sizes {mib['sizes']:.0f} MiB"
        )
    return "; ".join(parts)


def graph_file(config):
    """The graph's file name, as the C++ backend finds it."""
    return config.get("default_model_filename") or DEFAULT_GRAPH_FILE


def session_options(config):
    """Session options from ``config.pbtxt``, under the C++ backend's names."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    options.intra_op_num_threads = _integer(parameters, "intra_op_thread_count")
    options.inter_op_num_threads = _integer(parameters, "inter_op_thread_count")
    if _integer(parameters, "execution_mode") == 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = _boolean(parameters, "enable_mem_arena")
    options.enable_mem_pattern = _boolean(parameters, "enable_mem_pattern")
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    if level:
        if level not in GRAPH_LEVELS:
            raise pb_utils.TritonModelException(f"optimization.graph.level is {level}; -1, 1 and 2 are known")
        options.graph_optimization_level = GRAPH_LEVELS[level]
    return options


def providers(config, device):
    """Execution providers for one instance.

    Args:
        config: The model's configuration.
        device: The CUDA device, or None for the CPU.
    """
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for unknown in accelerators.get("cpu_execution_accelerator", []):
        pb_utils.Logger.log_warn(f"the accelerator {unknown['name']!r} is the C++ backend's; running without it")
    if device is None:
        return ["CPUExecutionProvider"]
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries, where they come from Python packages
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise pb_utils.TritonModelException(
            "the instance group asks for a GPU, but this server's onnxruntime is the CPU build; "
            "run `tritonkit install-server --device cuda`"
        )
    return [("CUDAExecutionProvider", cuda_options(config, accelerators, device)), "CPUExecutionProvider"]


def cuda_options(config, accelerators, device):
    """Options of the CUDA execution provider: those of the accelerator `cuda`, and the older parameters."""
    options = {}
    for name, choices in DEPRECATED_CUDA_PARAMETERS.items():
        value = config.get("parameters", {}).get(name, {}).get("string_value")
        if value is not None:
            options[name] = choices.get(value, value)
    for accelerator in accelerators.get("gpu_execution_accelerator", []):
        if accelerator["name"] == "cuda":
            options |= accelerator.get("parameters", {})
        else:
            pb_utils.Logger.log_warn(f"the accelerator {accelerator['name']!r} is the C++ backend's; using cuda")
    return options | {"device_id": str(device)}


def open_session(graph, options, execution_providers):
    """An onnxruntime session; a GPU that cannot be used is an error, never a silent fall back to the CPU."""
    session = ort.InferenceSession(str(graph), options, providers=execution_providers)
    first = execution_providers[0]
    provider = first if isinstance(first, str) else first[0]
    if provider not in session.get_providers():
        raise pb_utils.TritonModelException(f"{provider} did not start; its reason is in the server's log")
    return session


def _integer(parameters, name, default=0):
    try:
        return int(parameters.get(name, default))
    except ValueError:
        raise pb_utils.TritonModelException(f"parameter {name} is {parameters[name]!r}, not a whole number") from None


def _boolean(parameters, name):
    """A parameter that is on unless it says otherwise, in the C++ backend's words."""
    value = parameters.get(name, "1").lower()
    if value not in BOOLEANS:
        raise pb_utils.TritonModelException(f"parameter {name} is {parameters[name]!r}, neither 1 nor 0")
    return BOOLEANS[value]


def _graph_of_this_stub(config):
    """Where the graph is: auto-completion is not told, but the stub's first argument is a file in its folder."""
    first_argument = Path("/proc/self/cmdline").read_bytes().split(b"\0")[1].decode("utf-8", "surrogateescape")
    return Path(first_argument).with_name(graph_file(config))


def _described(tensor, batched):
    dims = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
    if tensor.type not in TRITON_TYPES:
        raise pb_utils.TritonModelException(f"{tensor.name!r} is {tensor.type}, which Triton does not have")
    return {
        "name": tensor.name,
        "data_type": TRITON_TYPES[tensor.type],
        "dims": dims[1:] if batched else dims,
    }


def _check_signature(config, session):
    """Refuse a configuration that the graph contradicts, at load time as the C++ backend does."""
    sequences = Sequences(config.get("sequence_batching", {}))
    given = {"input": [*config["input"], *sequences.inputs], "output": [*config["output"], *sequences.outputs]}
    for key, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        known = {tensor.name: tensor for tensor in tensors}
        for entry in given[key]:
            tensor = known.get(entry["name"])
            if tensor is None:
                raise pb_utils.TritonModelException(
                    f"the graph has no {key} {entry['name']!r}; it has: {', '.join(known)}"
                )
            if TRITON_TYPES.get(tensor.type) != entry["data_type"]:
                raise pb_utils.TritonModelException(
                    f"{key} {entry['name']!r} is {entry['data_type']} in the configuration, {tensor.type} in the graph"
                )
            _check_dims(key, entry, tensor.shape, config["max_batch_size"])
    for control in sequences.controls:  # the C++ backend takes no other shape
        shape = next(tensor.shape for tensor in session.get_inputs() if tensor.name == control["name"])
        if shape[int(config["max_batch_size"] > 0) :] != [1]:
            raise pb_utils.TritonModelException(
                f"control input {control['name']!r} has shape {shape} in the graph; its last dimension must be 1"
            )
    missing = {tensor.name for tensor in session.get_inputs()} - {entry["name"] for entry in given["input"]}
    if missing:
        raise pb_utils.TritonModelException(f"the graph's input {min(missing)!r} is not in the configuration")


def _check_sized(config, session):
    """As `_check_signature`; a prepared size has the configuration's shapes, and a number by itself has none."""
    _check_signature(config, session)
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        if not tensor.shape and config["max_batch_size"] == 0:
            raise pb_utils.TritonModelException(
                f"{tensor.name!r} is a number by itself, which has no prepared size; set the parameter batch_sizes: off"
            )


def _check_dims(key, entry, shape, max_batch_size):
    dims = entry["reshape"]["shape"] if "reshape" in entry else entry["dims"]
    full = [-1, *dims] if max_batch_size > 0 else list(dims)
    if max_batch_size == 0 and not shape and all(int(dim) == 1 for dim in dims):
        return  # a number by itself, which a configuration can only call [1]
    where = f"{key} {entry['name']!r} has dims {dims} in the configuration, {shape} in the graph"
    if max_batch_size > 0 and shape and isinstance(shape[0], int):
        raise pb_utils.TritonModelException(f"{where}: max_batch_size > 0 needs a dynamic first dimension")
    fits = len(full) == len(shape) and all(
        not isinstance(actual, int) or int(dim) == actual for dim, actual in zip(full, shape, strict=True)
    )
    if not fits:
        raise pb_utils.TritonModelException(where)


def _decoded(array):
    """Bytes as the str that onnxruntime takes; strings in ONNX are UTF-8."""
    return np.array([item.decode("utf-8") for item in array.reshape(-1)], dtype=object).reshape(array.shape)


def _tensor(name, array):
    if hasattr(array, "address"):  # in the GPU's memory
        return pb_utils.Tensor.from_dlpack(name, array.to_dlpack())
    if array.dtype == object:
        encoded = [item.encode("utf-8") for item in array.reshape(-1)]
        array = np.array([*encoded, None], dtype=object)[:-1].reshape(array.shape)
    return pb_utils.Tensor(name, array)


def _refusal(error):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))
