"""Triton's ``onnxruntime`` backend in Python: serves ``backend: "onnxruntime"`` models on the embedded server.

The same ``config.pbtxt`` and ``model.onnx`` run unchanged on the C++ backend of Triton's image, so every
setting here has the C++ backend's name and meaning. It runs in the embedded server's own environment (numpy 1,
see docs/decisions) and imports nothing of tritonkit.
"""

import json
import locale
import os
from pathlib import Path

locale.setlocale(locale.LC_ALL, "C.UTF-8")  # the stub starts in ASCII, whatever the environment says
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

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
        said = config.as_dict()
        if said["input"] and said["output"]:
            return config
        session = open_session(_graph_of_this_stub(said), ort.SessionOptions(), ["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        size = said["max_batch_size"]
        if size == 0 and not said["input"] and all(t.shape and not isinstance(t.shape[0], int) for t in tensors):
            size = AUTO_MAX_BATCH_SIZE
            config.set_max_batch_size(size)
            if "sequence_batching" not in said and "ensemble_scheduling" not in said:
                config.set_dynamic_batching()
        for tensor in session.get_inputs():
            config.add_input(_described(tensor, batched=size > 0))
        for tensor in session.get_outputs():
            config.add_output(_described(tensor, batched=size > 0))
        return config

    def initialize(self, args):
        """Open the session that this instance serves."""
        config = json.loads(args["model_config"])
        graph = Path(args["model_repository"], args["model_version"], graph_file(config))
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self.session = open_session(graph, session_options(config), providers(config, device))
        _check_signature(config, self.session)
        self.output_names = [tensor.name for tensor in self.session.get_outputs()]
        self.input_names = [tensor.name for tensor in self.session.get_inputs()]
        self.strings = {t.name for t in self.session.get_inputs() if t.type == "tensor(string)"}
        self.batched = config["max_batch_size"] > 0
        self.buffers = {}  # input name → the memory that batches are gathered in

    def execute(self, requests):
        """Run one batch; a request that the graph rejects fails by itself."""
        try:
            return self._run(requests)
        except Exception as error:
            if len(requests) == 1:
                return [pb_utils.InferenceResponse(error=pb_utils.TritonError(_message(error)))]
        return [self.execute([request])[0] for request in requests]

    def _run(self, requests):
        columns = {name: [self._array(request, name) for request in requests] for name in self.input_names}
        if len(requests) == 1:
            outputs = self.session.run(self.output_names, {name: arrays[0] for name, arrays in columns.items()})
            return [self._response(requests[0], outputs)]
        sizes = [len(array) for array in columns[self.input_names[0]]]
        outputs = self.session.run(
            self.output_names,
            {name: self._gather(name, arrays, sum(sizes)) for name, arrays in columns.items()},
        )
        for name, output in zip(self.output_names, outputs, strict=True):
            if output.shape[:1] != (sum(sizes),):
                raise ValueError(f"output {name!r} has shape {output.shape} for a batch of {sum(sizes)}")
        responses = []
        start = 0
        for request, size in zip(requests, sizes, strict=True):
            responses.append(self._response(request, [output[start : start + size] for output in outputs]))
            start += size
        return responses

    def _array(self, request, name):
        array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        return _decoded(array) if name in self.strings else array

    def _gather(self, name, arrays, total):
        """The rows of all requests in one array; its memory is kept, as fresh pages cost more than the copy."""
        if name in self.strings:
            return np.concatenate(arrays)
        buffer = self.buffers.get(name)
        if buffer is None or len(buffer) < total or buffer.shape[1:] != arrays[0].shape[1:]:
            buffer = self.buffers[name] = np.empty((total, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
        return np.concatenate(arrays, out=buffer[:total])

    def _response(self, request, outputs):
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [_tensor(name, output) for name, output in zip(self.output_names, outputs, strict=True) if name in wanted]
        )


def graph_file(config):
    """The graph's file name, as the C++ backend finds it."""
    return config.get("default_model_filename") or DEFAULT_GRAPH_FILE


def session_options(config):
    """Session options from ``config.pbtxt``, under the C++ backend's names."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    said = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    options.intra_op_num_threads = _integer(said, "intra_op_thread_count")
    options.inter_op_num_threads = _integer(said, "inter_op_thread_count")
    if _integer(said, "execution_mode") == 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = bool(_integer(said, "enable_mem_arena", 1))
    options.enable_mem_pattern = bool(_integer(said, "enable_mem_pattern", 1))
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
    wanted = first if isinstance(first, str) else first[0]
    if wanted not in session.get_providers():
        raise pb_utils.TritonModelException(f"{wanted} did not start; its reason is in the server's log")
    return session


def _integer(said, name, default=0):
    try:
        return int(said.get(name, default))
    except ValueError:
        raise pb_utils.TritonModelException(f"parameter {name} is {said[name]!r}, not a whole number") from None


def _graph_of_this_stub(said):
    """Where the graph is: auto-completion is not told, but the stub's first argument is a file in its folder."""
    first_argument = Path("/proc/self/cmdline").read_bytes().split(b"\0")[1].decode("utf-8", "surrogateescape")
    return Path(first_argument).with_name(graph_file(said))


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
    for key, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        known = {tensor.name: tensor for tensor in tensors}
        for said in config[key]:
            tensor = known.get(said["name"])
            if tensor is None:
                raise pb_utils.TritonModelException(
                    f"the graph has no {key} {said['name']!r}; it has: {', '.join(known)}"
                )
            if TRITON_TYPES.get(tensor.type) != said["data_type"]:
                raise pb_utils.TritonModelException(
                    f"{key} {said['name']!r} is {said['data_type']} in the configuration, {tensor.type} in the graph"
                )
            _check_dims(key, said, tensor.shape, config["max_batch_size"])
    missing = {tensor.name for tensor in session.get_inputs()} - {said["name"] for said in config["input"]}
    if missing:
        raise pb_utils.TritonModelException(f"the graph's input {min(missing)!r} is not in the configuration")


def _check_dims(key, said, shape, max_batch_size):
    dims = said["reshape"]["shape"] if "reshape" in said else said["dims"]
    full = [-1, *dims] if max_batch_size > 0 else list(dims)
    where = f"{key} {said['name']!r} has dims {dims} in the configuration, {shape} in the graph"
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
    if array.dtype == object:
        encoded = [item.encode("utf-8") for item in array.reshape(-1)]
        array = np.array([*encoded, None], dtype=object)[:-1].reshape(array.shape)
    return pb_utils.Tensor(name, array)


def _message(error):
    return f"{type(error).__name__}: {error}"
