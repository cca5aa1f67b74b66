"""Runs the model of TensorRT-LLM's llmapi template from NVIDIA's image; it reads the model.yaml beside this file.

Triton's Python backend runs this in the image, where the template is. Written by tritonkit.
"""

import importlib.util
import os
import sys
from pathlib import Path

TEMPLATE = os.environ.get("TRTLLM_LLMAPI_TEMPLATE", "/app/all_models/llmapi/tensorrt_llm/1")
FILE = Path(TEMPLATE) / "model.py"
if not FILE.is_file():
    raise RuntimeError(
        f"there is no {FILE}: serve this with NVIDIA's image tritonserver:YY.MM-trtllm-python-py3, or set "
        "TRTLLM_LLMAPI_TEMPLATE to triton_backend/all_models/llmapi/tensorrt_llm/1 of your TensorRT-LLM"
    )
sys.path.insert(0, TEMPLATE)  # the template imports the helpers.py beside it
spec = importlib.util.spec_from_file_location("llmapi_template", FILE)
if spec is None or spec.loader is None:
    raise RuntimeError(f"{FILE} cannot be imported")
template = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = template
spec.loader.exec_module(template)
TritonPythonModel = template.TritonPythonModel
