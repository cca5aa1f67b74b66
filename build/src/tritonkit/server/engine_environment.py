"""Environments of engines that cannot run inside the server, apart from its own: vLLM's, which needs numpy 2.

Every Python process there ends with the one that started it (:mod:`tritonkit.server.end_with_parent`), so an engine
that was started by a server never outlives it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tritonkit import atomic, progress, store
from tritonkit.server import runtime
from tritonkit.server.runtime import Device, Interpreter

_HOOK = Path(__file__).with_name("end_with_parent.py")
_HOOK_MODULE = "tritonkit_end_with_parent"


@dataclass(frozen=True)
class EngineEnvironment:
    """An installed environment of an engine.

    Attributes:
        path: Its folder.
        device: What the engine was built for.
    """

    path: Path
    device: Device

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin/python3"

    def variables(self) -> dict[str, str]:
        """The environment variables by which the server's backend finds the engine."""
        return {"TRITONKIT_VLLM_PYTHON": str(self.python), "TRITONKIT_VLLM_DEVICE": self.device}


def find(device: Device | None = None, interpreter: Interpreter | None = None) -> EngineEnvironment | None:
    """The environment of vLLM, or None if it is not installed; a given ``interpreter`` saves the search for one."""
    device = device or runtime.detect_device()
    environment = EngineEnvironment(_home(device, interpreter or runtime.find_interpreter()), device)
    return environment if (environment.path / "complete").is_file() else None


def install(device: Device | None = None) -> EngineEnvironment:
    """Install vLLM if it is not installed yet, into tritonkit's home; nothing else is touched.

    Raises:
        MissingError: A package cannot be had, or this machine cannot run the server.
    """
    device = device or runtime.detect_device()
    interpreter = runtime.find_interpreter()
    if environment := find(device, interpreter):
        return environment
    target = _home(device, interpreter)
    with progress.steps("vLLM", 1) as steps, atomic.staging(target) as stage:
        steps.next(f"install it for {device} ({'2.4' if device == 'cpu' else '10'} GiB)")
        place = runtime.make_environment(stage, interpreter)
        runtime.pip(interpreter, "--no-deps", "--target", str(place), "-r", str(_requirements(device)))
        (place / f"{_HOOK_MODULE}.py").write_bytes(_HOOK.read_bytes())
        (place / f"{_HOOK_MODULE}.pth").write_text(f"import {_HOOK_MODULE}\n", encoding="utf-8")
        (stage / "complete").write_text("vllm\n", encoding="utf-8")
        stage.chmod(0o755)
        atomic.put(stage, target)
    return EngineEnvironment(target, device)


def _requirements(device: Device) -> Path:
    return Path(__file__).with_name(f"requirements-vllm-{device}.txt")


def _home(device: Device, interpreter: Interpreter) -> Path:
    parts = (_requirements(device).read_text(encoding="utf-8"), _HOOK.read_text(encoding="utf-8"), str(interpreter))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return store.home() / "server" / f"vllm-{device}-py{interpreter.version}-{key}"
