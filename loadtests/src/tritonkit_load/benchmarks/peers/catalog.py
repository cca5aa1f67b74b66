"""Which servers are compared, how each is started, and which settings of each are tried before the better one counts.

What a team would write for a server lies in a folder of its own, beside the exact versions it runs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tritonkit_load.load.target import Target

HERE = Path(__file__).parent
BATCH = 8  # what a peer's batching gathers at most on a CPU; more only makes its slowest answers slower
# The same on a GPU: as much as the shipped recipes take, and a quarter, for which nobody waits as long.
LARGE_BATCH, SMALL_BATCH = 64, 16
WORKERS = 4  # as many as tritonkit's own default has instances on a GPU


@dataclass(frozen=True)
class Variant:
    """One way to configure a peer.

    Attributes:
        settings: In words, for the report.
        files: What a team writes for it, in the peer's folder.
        environment: Variables that set it.
    """

    settings: str
    files: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One server.

    Attributes:
        key: What PEERS calls it; its name in lower case.
        name: As its makers write it.
        package: The distribution whose version is shown.
        command: The program and its arguments; ``{bin}`` is its environment's folder of programs, ``{file}`` the first
            of the variant's files.
        protocol: ``http``: raw tensors in a body; ``bytes``: KServe v2 over gRPC, raw tensors in one BYTES element;
            ``grpc``: KServe v2 over gRPC with the graph's own tensors.
        variants: Tried in turn on a CPU; the fastest is compared.
        gpu_variants: The same on a GPU.
        environment: Variables that all of them need, with ``{port}``, ``{port2}``, ``{port3}``, ``{model}``,
            ``{name}``, ``{work}`` and ``{libraries}`` (of the interpreter) to fill in. On a GPU there is
            ``CUDA_OPTIONS``, too: onnxruntime's options for its CUDA provider, as JSON.
        place: The folder of its files; ``key`` if not given.
    """

    key: str
    name: str
    package: str
    command: tuple[str, ...]
    protocol: str
    variants: tuple[Variant, ...]
    gpu_variants: tuple[Variant, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    place: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", self.place or self.key)

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return HERE / self.place

    def variants_for(self, target: Target) -> tuple[Variant, ...]:
        """The variants that are tried on a target."""
        return self.gpu_variants if target == "cuda" else self.variants

    @property
    def requirements(self) -> Path:
        """Every distribution of its environment, with its version."""
        return self.folder / "requirements.txt"

    @property
    def pins(self) -> dict[str, str]:
        """Distribution to version."""
        lines = (line.split("#")[0].strip() for line in self.requirements.read_text(encoding="utf-8").splitlines())
        return dict(line.split("==") for line in lines if line)

    @property
    def version(self) -> str:
        """The server's version."""
        return self.pins[self.package]


SERVE = {"MODEL": "{model}", "PORT": "{port}"}
ONE, MANY = "one request at a time", f"batches of up to {BATCH}"


def _on_gpu(
    files: tuple[str, ...], processes: str, *, size: str = "MAX_BATCH_SIZE", count: str = "WORKERS", few: int = 1,
    alone: bool = True,
) -> tuple[Variant, ...]:  # fmt: skip
    """What is tried of each peer: no batches, batches as they come, and batches filled up to one fixed size.

    Args:
        files: In the peer's folder.
        processes: What there can be several of, in words with ``{}`` for their number.
        size: The variable with the largest batch.
        count: The variable with the number of processes.
        few: Processes where batches are large.
        alone: Whether the peer is tried without batches.
    """
    tried = [(LARGE_BATCH, False, few), (LARGE_BATCH, True, few), (SMALL_BATCH, True, WORKERS)]
    if alone:
        tried.insert(0, (1, False, WORKERS))
    variants = []
    for batch, fixed, workers in tried:
        filled = ", filled up with zeros to that size" if fixed else ""
        batches = f"batches of up to {batch}{filled}" if batch > 1 else ONE
        values = {size: str(batch), count: str(workers), "FIXED": str(int(fixed))}
        variants.append(Variant(f"{processes.format(workers)}, {batches}", files, values))
    return tuple(variants)


PEERS = (
    Peer(
        "fastapi", "FastAPI", "fastapi", ("{bin}/python", "{file}"), "http",
        (
            Variant(f"uvicorn with uvloop and httptools, {ONE}, in the event loop", ("serve.py",)),
            Variant(f"uvicorn with uvloop and httptools, {MANY}, in a thread", ("batching.py",)),
        ),
        _on_gpu(("gpu/serve.py",), "uvicorn with uvloop and httptools, processes: {}"),
        SERVE,
    ),
    Peer(
        "litserve", "LitServe", "litserve", ("{bin}/python", "{file}"), "http",
        tuple(
            Variant(f"fast queue, one worker, {settings}", ("serve.py",), {"MAX_BATCH_SIZE": str(size)})
            for settings, size in ((ONE, 1), (f"{MANY} within 5 ms", BATCH))
        ),
        _on_gpu(("gpu/serve.py",), "fast queue, workers on the GPU: {}, 2 ms for a batch"),
        SERVE,
    ),
    Peer(
        "bentoml", "BentoML", "bentoml",
        ("{bin}/bentoml", "serve", "service:Model", "--host", "127.0.0.1"), "http",
        (Variant(f"one worker with one thread, {ONE}, no access log, no metrics", ("service.py",)),),
        _on_gpu(
            ("gpu/service.py",), "workers: {} before one with the GPU, adaptive batching",
            few=WORKERS, alone=False,
        ),
        {**SERVE, "BENTOML_PORT": "{port}", "BENTOML_HOME": "{work}/bentoml", "BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        "mlserver", "MLServer", "mlserver", ("{bin}/mlserver", "start", "."), "bytes",
        tuple(
            Variant(
                f"no parallel workers, {settings}", ("model.py", "settings.json", "model-settings.json"),
                {"MLSERVER_MODEL_MAX_BATCH_SIZE": str(size), "MLSERVER_MODEL_MAX_BATCH_TIME": str(seconds)},
            )
            for settings, size, seconds in ((ONE, 0, 0), (MANY, BATCH, 0.001))
        ),
        _on_gpu(
            ("gpu/model.py", "gpu/settings.json", "gpu/model-settings.json"), "parallel workers: {}",
            size="MLSERVER_MODEL_MAX_BATCH_SIZE", count="MLSERVER_PARALLEL_WORKERS",
        ),
        {
            "MLSERVER_GRPC_PORT": "{port}", "MLSERVER_HTTP_PORT": "{port2}", "MLSERVER_METRICS_PORT": "{port3}",
            "MLSERVER_MODEL_NAME": "{name}", "MLSERVER_MODEL_PARAMETERS": '{{"uri": "{model}"}}',
        },
    ),
    Peer(
        "pytriton", "PyTriton", "nvidia-pytriton", ("{bin}/python", "{file}"), "grpc",
        tuple(
            Variant(settings, ("serve.py",), {"MAX_BATCH_SIZE": str(size)})
            for settings, size in ((ONE, 1), (MANY, BATCH))
        ),
        _on_gpu(("gpu/serve.py",), "instances: {}"),
        {
            **SERVE, "MODEL_NAME": "{name}", "HTTP_PORT": "{port2}", "METRICS_PORT": "{port3}",
            "LD_LIBRARY_PATH": "{libraries}", "PYTRITON_HOME": "{work}/pytriton",
        },
    ),
)  # fmt: skip

# What serves forests of trees, with the library that trained them; on a CPU alone, as the embedded server does.
FOREST_PEERS = (
    Peer(
        "fastapi", "FastAPI", "fastapi", ("{bin}/python", "{file}"), "http",
        (
            Variant(f"XGBoost behind uvicorn with uvloop and httptools, {ONE}, in the event loop", ("serve.py",)),
            Variant(f"XGBoost behind uvicorn with uvloop and httptools, {MANY}, in a thread", ("batching.py",)),
        ),
        (),
        SERVE,
        "fastapi_xgboost",
    ),
)  # fmt: skip
