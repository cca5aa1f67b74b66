"""tritonkit's FIL backend: forests of XGBoost, LightGBM and scikit-learn on the embedded server's CPU.

The same ``config.pbtxt`` and model file run unchanged on NVIDIA's C++ backend of Triton's image, so every parameter has
its name and meaning; there a GPU does the work where the configuration asks for one, here a CPU does. What that backend
would read past an array's end (other numbers of features or of output columns than the file's) is refused here. It
runs in the server's own environment (docs/decisions/0002) and imports nothing of tritonkit.
"""

import importlib.util
import json
import locale
import sys
from pathlib import Path

locale.setlocale(locale.LC_ALL, "C.UTF-8")  # the stub starts in ASCII, whatever the environment says

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Triton puts the model's folder there, not the backend's
from forest_inference import FILES, INPUT, OUTPUT, Forest, ForestError, answer_dims, read_settings  # noqa: E402

STALLS = Path(__file__).resolve().parents[1] / "onnxruntime/batch_execution/stalls.py"


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Leave a configuration as it is: the C++ backend completes none."""
        return auto_complete_model_config

    def initialize(self, args):
        """Open the forest that this instance serves."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        folder = Path(args["model_repository"], args["model_version"])
        try:
            settings = read_settings(parameters)
            path = folder / (config.get("default_model_filename") or FILES[settings.model_type])
            self.forest = Forest(path, settings)
            self.dims = self._tensor_dims(config)
        except ForestError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self.guard = _stalls().StallGuard()
        if args["model_instance_kind"] == "GPU":
            pb_utils.Logger.log_warn(
                f"{args['model_instance_name']}: NVIDIA's backend runs it on the GPU, this on a CPU"
            )

    def execute(self, requests):
        """Run the rows of all requests at once; one that the forest rejects fails by itself."""
        self.guard.begin()
        responses = self._answers(requests)
        self.guard.finish()
        return responses

    def _answers(self, requests):
        try:
            inputs = [self._rows(request) for request in requests]
            outputs = self._run(inputs)
        except Exception as error:
            if len(requests) == 1:
                return [pb_utils.InferenceResponse([], pb_utils.TritonError(str(error)))]
            return [self._answers([request])[0] for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor(OUTPUT, output)]) for output in outputs]

    def _rows(self, request):
        return np.asarray(pb_utils.get_input_tensor_by_name(request, INPUT).as_numpy()).reshape(
            -1, self.forest.num_feature
        )

    def _run(self, inputs):
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        scores = self.forest.predict(rows, self.width)
        ends = np.cumsum([len(part) for part in inputs])[:-1]
        return [np.ascontiguousarray(part.reshape(len(part), *self.dims)) for part in np.split(scores, ends)]

    def _tensor_dims(self, config):
        """Hold the configuration's tensors against the file; the dimensions of an answer beside its rows."""
        batched = config["max_batch_size"] > 0
        inputs = {tensor["name"]: tensor for tensor in config["input"]}
        outputs = {tensor["name"]: tensor for tensor in config["output"]}
        for kind, tensors, name in (("input", inputs, INPUT), ("output", outputs, OUTPUT)):
            if list(tensors) != [name]:
                raise ForestError(f"the {kind}s are {', '.join(tensors) or 'none'}; this server has {name} alone")
            if tensors[name]["data_type"] != "TYPE_FP32":
                raise ForestError(f"{name} is {tensors[name]['data_type']}, and forests have TYPE_FP32")
        columns = _columns(inputs[INPUT], batched)
        if columns != [self.forest.num_feature]:
            raise ForestError(f"{INPUT} has dims {columns}, and the file has {self.forest.num_feature} features")
        dims = _columns(outputs[OUTPUT], batched)
        self.width = int(np.prod(dims))
        if self.width not in self.forest.widths:
            widths = " or ".join(map(str, self.forest.widths))
            raise ForestError(f"{OUTPUT} has dims {dims}, and such a forest answers with {widths} columns")
        return answer_dims(dims)


def _stalls():
    """The module of the onnxruntime backend beside this one."""
    spec = importlib.util.spec_from_file_location("stalls", STALLS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _columns(tensor, batched):
    """Dimensions beside the rows; without batches the rows are the first of the configuration's own."""
    dims = [int(dim) for dim in tensor.get("reshape", {}).get("shape") or tensor["dims"]]
    return dims if batched else dims[1:]
