"""Builds TensorRT plans from ONNX graphs: one code path for TensorRT 10, TensorRT 11 and TensorRT-RTX.

Networks are strongly typed: the graph says every precision, and no builder flag does. TensorRT builds for the GPU of
this machine; TensorRT-RTX builds ahead of time, without one. What to build, and where it goes, is for
:mod:`tritonkit.engines.plans` and :mod:`tritonkit.engines.preflight`.
"""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tritonkit import graph
from tritonkit.engines import layer_precision, messages, profiles, timing
from tritonkit.engines.build_progress import Watch, monitor
from tritonkit.errors import CheckFailed, GraphError, InputError, MissingError

Name = Literal["tensorrt", "tensorrt_rtx"]
Compatibility = Literal["none", "ampere_plus", "same_compute_capability"]
Capability = tuple[int, int]
AMPERE = (8, 0)
_MISSING = {
    "tensorrt": (
        "TensorRT is not installed (the Python package tensorrt)",
        "run in the image of build/Dockerfile, or `pip install tensorrt` on a machine with the GPU; "
        "--preflight checks a graph without either",
    ),
    "tensorrt_rtx": (
        "TensorRT-RTX is not installed (the Python package tensorrt-rtx)",
        'pip install "tritonkit[tensorrt-rtx]"',
    ),
}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Options:
    """How to build; the defaults are for a plan that runs on the GPU it was built on.

    Attributes:
        workspace_bytes: Scratch memory that a kernel may use; None leaves TensorRT all of the GPU's.
        hardware_compatibility: Other GPUs that the plan must run on; costs speed.
        version_compatible: Whether later TensorRT versions must run it; costs speed.
        weight_stripped: Leave the weights out; whoever loads the plan refits them from the graph.
        plugins: Libraries of operators; they are put into the plan.
    """

    workspace_bytes: int | None = None
    hardware_compatibility: Compatibility = "none"
    version_compatible: bool = False
    weight_stripped: bool = False
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A finished plan.

    Attributes:
        data: The file's bytes.
        seconds: How long the build took.
        memory_bytes: Weights and activations on the GPU, or the plan's size where TensorRT cannot tell.
        notes: What was odd, as sentences.
    """

    data: bytes
    seconds: float
    memory_bytes: int
    notes: tuple[str, ...] = ()


class Toolkit:
    """TensorRT or TensorRT-RTX.

    Attributes:
        name: The Python package.
        version: Its version, four numbers.
        targets: Compute capabilities that it builds for without a GPU; empty for TensorRT.
    """

    def __init__(self, name: Name, module: Any) -> None:
        self.name = name
        self.module = module
        self.version = ".".join(re.findall(r"\d+", module.__version__)[:4])
        named = getattr(getattr(module, "ComputeCapability", None), "__members__", {})
        matches = (re.fullmatch(r"SM(\d+)(\d)", member) for member in named)
        self.targets = frozenset((int(match[1]), int(match[2])) for match in matches if match)


def load(name: Name) -> Toolkit:
    """Import TensorRT or TensorRT-RTX.

    Raises:
        MissingError: The package is not installed, or its libraries do not load.
    """
    bindings = f"{name}_bindings"  # all that pip installs beside the libraries of an NGC image
    for module in (name, bindings):
        try:
            return Toolkit(name, importlib.import_module(module))
        except ModuleNotFoundError as error:
            if error.name not in {name, bindings}:
                raise MissingError(f"{module} needs {error.name}, which is not installed", _MISSING[name][1]) from error
        except ImportError as error:
            raise MissingError(f"{module} is installed and does not load: {error}", _MISSING[name][1]) from error
    raise MissingError(*_MISSING[name])


class Network:
    """A graph that TensorRT has parsed, and can build several times.

    Attributes:
        counts: Compute layers by precision (:mod:`tritonkit.engines.layer_precision`).
    """

    def __init__(self, toolkit: Toolkit, path: Path, plugins: Sequence[Path] = ()) -> None:
        """Parse the ONNX file at ``path``.

        Raises:
            GraphError: The file is no valid ONNX model.
            Refused: TensorRT refuses it; the message names nodes, operators and opsets.
            InputError: A plugin library is missing or does not load.
        """
        self.toolkit, self.path, self._trt = toolkit, path, toolkit.module
        graph.read_signature(path)
        self._nodes = messages.Nodes(path)
        self._log: list[tuple[str, str]] = []
        self._logger = messages.logger(self._trt, self._log)
        with messages.silence():
            self._trt.init_libnvinfer_plugins(self._logger, "")
            self._builder = self._trt.Builder(self._logger)
            self._load_plugins(plugins)
            # TensorRT 10 has to be told; on 11 and RTX every network is strongly typed and the flag is ignored.
            typed = 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            self._network = self._builder.create_network(typed)
            self._parser = self._trt.OnnxParser(self._network, self._logger)
            parsed = self._parser.parse_from_file(str(path))
        if not parsed:
            raise messages.Refused(str(path), messages.of_parser(self._parser, self._nodes))
        self._refuse_silent_changes()
        self.counts = layer_precision.count(self._network)

    def _load_plugins(self, libraries: Sequence[Path]) -> None:
        for library in libraries:
            if not library.is_file():
                raise InputError(f"there is no plugin library {library}", "correct the path")
            if self._builder.get_plugin_registry().load_library(str(library.absolute())) is None:
                reason = messages.of_build(self._log, self._nodes).text
                raise InputError(f"{library} is no TensorRT plugin library: {reason}", "build it for this TensorRT")

    def _refuse_silent_changes(self) -> None:
        """Unsigned Q/DQ is read as int8 with a warning: everything above 127 would saturate."""
        warned = next((text for _, text in self._log if "Defaulting to INT8 instead" in text), "")
        if warned:
            node = next(iter(self._nodes.unsigned), "")
            reason = messages.at_node(messages.explain(warned), node, *self._nodes.named(node))
            raise messages.Refused(str(self.path), [reason])

    def check_profiles(self, shapes: Sequence[profiles.Profile]) -> None:
        """Hold profiles against the parsed network; needs no GPU and no compute capability.

        Raises:
            InputError: Bounds are out of order, or contradict the graph's own sizes.
            GraphError: An input's values, not its shape, decide the shapes of other tensors.
            Refused: TensorRT finds something else in the network that it does not support.
        """
        profiles.check(shapes)
        inputs = [self._network.get_input(index) for index in range(self._network.num_inputs)]
        if values := [tensor.name for tensor in inputs if tensor.is_shape_tensor]:
            raise GraphError(
                f"{self.path}: the values of input {values[0]!r} decide the shapes of other tensors; "
                "profiles are built of shapes only",
                "make it a constant of the graph",
            )
        with messages.silence():
            before = len(self._log)
            config = self._configure(shapes)
            supported = self._builder.is_network_supported(self._network, config)
        if not supported:
            reason = messages.of_build(self._log[before:], self._nodes)
            if "profile" in reason.text:
                raise InputError(f"{self.path}: {reason}", reason.hint)
            raise messages.Refused(str(self.path), [reason])

    def build(
        self,
        shapes: Sequence[profiles.Profile],
        options: Options,
        capability: Capability,
        shown: Watch,
    ) -> Plan:
        """Build a plan.

        Args:
            shapes: The optimization profiles, in order.
            options: See :class:`Options`.
            capability: What to build for; TensorRT builds for this machine's GPU, which must have it.
            shown: Told how far the build is. Ctrl-C ends the build at its next step.

        Raises:
            Refused: TensorRT cannot build the graph for this compute capability.
        """
        check_compatibility(options, capability)
        start, before = time.monotonic(), len(self._log)
        with messages.silence():
            config = self._configure(shapes)
            self._set_options(config, options, capability)
            cache = self._timing_cache(config, capability)
            cancelled = threading.Event()
            self._monitor = monitor(self._trt, shown, cancelled)  # TensorRT only borrows it: it outlives the build here
            config.progress_monitor = self._monitor
            plan = _in_thread(lambda: self._builder.build_serialized_network(self._network, config), cancelled)
        if plan is None:
            if cancelled.is_set():
                raise CheckFailed("the build was ended, as nobody reads its progress", "run it again")
            reason = messages.of_build(self._log[before:], self._nodes)
            raise messages.Refused(f"{self.path} for compute capability {capability[0]}.{capability[1]}", [reason])
        if cache:
            timing.keep(config, cache)
        data = bytes(plan)
        seconds = round(time.monotonic() - start, 2)
        notes = [*messages.ignored(self._log[before:]), *(cache.notes if cache else ())]
        return Plan(data, seconds, self._memory_bytes(data), tuple(notes))

    def _configure(self, shapes: Sequence[profiles.Profile]) -> Any:
        config = self._builder.create_builder_config()
        for profile in shapes:
            optimization_profile = self._builder.create_optimization_profile()
            for name, bounds in profile.items():
                optimization_profile.set_shape(name, bounds.min, bounds.opt, bounds.max)
            if config.add_optimization_profile(optimization_profile) < 0:
                raise InputError(f"{self.path}: TensorRT refuses the profile {profile}", "put its bounds in order")
        return config

    def _set_options(self, config: Any, options: Options, capability: Capability) -> None:
        trt = self._trt
        if self.toolkit.targets:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, "SM{}{}".format(*capability)), 0)
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.hardware_compatibility != "none":
            level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper())
            config.hardware_compatibility_level = level
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.weight_stripped:
            config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        if options.plugins:
            config.plugins_to_serialize = [str(library.absolute()) for library in options.plugins]

    def _timing_cache(self, config: Any, capability: Capability) -> timing.Cache | None:
        """None where nothing is timed: TensorRT-RTX picks kernels on the GPU that runs them."""
        if self.toolkit.targets:
            return None
        return timing.attach(config, timing.path(self.toolkit.name, self.toolkit.version, capability))

    def _memory_bytes(self, data: bytes) -> int:
        """What the plan takes on the GPU: its weights, and activations of one execution context."""
        with messages.silence():
            runtime = self._trt.Runtime(self._logger)
            runtime.engine_host_code_allowed = True  # a version-compatible plan carries a runtime; this one is ours
            engine = runtime.deserialize_cuda_engine(data)
        return len(data) + int(engine.device_memory_size_v2) if engine is not None else len(data)


def check_compatibility(options: Options, capability: Capability) -> None:
    """Refuse a hardware compatibility that this compute capability cannot have.

    Raises:
        InputError: The compatibility is ``ampere_plus`` and the GPU is older than Ampere.
    """
    if options.hardware_compatibility == "ampere_plus" and capability < AMPERE:
        raise InputError(
            f"hardware compatibility ampere_plus cannot be built for compute capability "
            f"{capability[0]}.{capability[1]}: it starts at 8.0",
            "build a plan of its own for this GPU",
        )


def _in_thread(work: Callable[[], _T], cancelled: threading.Event) -> _T:
    """Run ``work`` beside this thread, so that Ctrl-C is heard while C++ is busy; it then ends at its next step."""
    results: list[_T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # handed to the thread that waits
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="tensorrt").start()
    interrupted: BaseException | None = None
    while not done.is_set():
        try:
            done.wait(0.05)  # not Thread.join: interrupted, it takes the thread for ended (Python 3.11)
        except KeyboardInterrupt as error:  # TensorRT must not be left alone with objects that are going away
            interrupted = error
            cancelled.set()
    if interrupted:
        raise interrupted
    if errors:
        raise errors[0]
    return results[0]
