"""What Triton runs as ``<ensemble>_before`` or ``<ensemble>_after``: a user's function, once for each row of a request.

A copy of this file lies in the repository. It runs in the server's own environment, so it imports nothing of
tritonkit; which function of which file it calls stands in ``function.json`` beside it.
"""

import importlib.util
import json
import locale
import traceback
from pathlib import Path
from typing import Any

locale.setlocale(locale.LC_ALL, "C.UTF-8")  # the stub starts in ASCII, whatever the environment says

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # noqa: E402


class TritonPythonModel:
    """One instance of the function."""

    def initialize(self, args: dict[str, str]) -> None:
        """Import the user's file, so that the first request does not pay for it."""
        directory = Path(args["model_repository"], args["model_version"])
        settings = json.loads((directory / "function.json").read_text(encoding="utf-8"))
        self.file, self.function_name = settings["file"], settings["function"]
        spec: Any = importlib.util.spec_from_file_location(f"user_{Path(self.file).stem}", directory / self.file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.function = getattr(module, self.function_name)
        self.inputs: dict[str, bool] = settings["inputs"]  # name to whether a row is one value
        config = json.loads(args["model_config"])
        self.outputs = {output["name"]: output for output in config["output"]}
        self.batched = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer or refuse each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        arrays = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        count = len(next(iter(arrays.values()))) if self.batched else 1
        rows: list[dict[str, Any]] = []
        for number in range(count):
            row = {name: array[number] if self.batched else array for name, array in arrays.items()}
            try:
                rows.append(self._checked(self.function(**{name: self._plain(name, row[name]) for name in row})))
            except Exception as error:
                return self._refusal(error, number)
        try:
            stacked = {name: np.stack([row[name] for row in rows]) for name in self.outputs}
        except ValueError:
            message = f"{self.file}:{self.function_name} returned rows of different shapes: send each as a request"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array if self.batched else array[0]) for name, array in stacked.items()]
        )

    def _plain(self, name: str, value: Any) -> Any:
        return value.reshape(-1)[0] if self.inputs[name] else value

    def _checked(self, result: Any) -> dict[str, Any]:
        """The outputs of one row, as arrays of the configured dtypes and dims."""
        if not isinstance(result, dict) or set(result) != set(self.outputs):
            given = sorted(result) if isinstance(result, dict) else type(result).__name__
            raise TypeError(f"it must return a dict of {sorted(self.outputs)}, got {given}")
        return {name: self._array(output, result[name]) for name, output in self.outputs.items()}

    def _array(self, output: dict[str, Any], value: Any) -> Any:
        array = np.asarray(value)
        if output["data_type"] == "TYPE_STRING":
            items = [item if isinstance(item, bytes) else str(item).encode() for item in np.asarray(value, object).flat]
            array = np.array([*items, None], dtype=object)[:-1].reshape(array.shape)
        else:
            array = array.astype(pb_utils.triton_string_to_numpy(output["data_type"]), casting="same_kind")
        dims = [int(dim) for dim in output["dims"]]
        array = array.reshape(1) if dims == [1] and array.shape == () else array
        if len(array.shape) != len(dims) or any(dim not in (-1, size) for size, dim in zip(array.shape, dims)):  # noqa: B905
            raise TypeError(f"{output['name']} has the shape {list(array.shape)}, the recipe says {dims}")
        return array

    def _refusal(self, error: Exception, number: int) -> Any:
        """A ValueError is the caller's mistake, anything else the function's."""
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(self.file)
        ]
        where = f"{self.file}:{lines[-1]}" if lines else self.file
        message = f"{self.function_name} ({where}) failed on row {number}: {type(error).__name__}: {error}"
        if isinstance(error, ValueError):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL))
