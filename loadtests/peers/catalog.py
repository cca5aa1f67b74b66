"""Which servers are compared, how each is started, and which settings of each are tried before the better one counts.

What a team would write for a server lies in the folder that bears its key, beside the exact versions it runs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
BATCH = 8  # what a peer's batching gathers at most; more only makes its slowest answers slower


@dataclass(frozen=True)
class Variant:
    """One way to configure a peer.

    Attributes:
        said: In words, for the report.
        files: What a team writes for it, in the peer's folder.
        environment: Variables that set it.
    """

    said: str
    files: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One server.

    Attributes:
        key: Its folder.
        name: As its makers write it.
        package: The distribution whose version is shown.
        command: The program and its arguments; ``{bin}`` is its environment's folder of programs, ``{file}`` the first
            of the variant's files.
        protocol: ``http``: raw tensors in a body; ``bytes``: KServe v2 over gRPC, raw tensors in one BYTES element;
            ``grpc``: KServe v2 over gRPC with the graph's own tensors.
        variants: Tried in turn; the fastest is compared.
        environment: Variables that all of them need, with ``{port}``, ``{port2}``, ``{port3}``, ``{model}``,
            ``{name}``, ``{work}`` and ``{libraries}`` (of the interpreter) to fill in.
    """

    key: str
    name: str
    package: str
    command: tuple[str, ...]
    protocol: str
    variants: tuple[Variant, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return HERE / self.key

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
        """Of the server."""
        return self.pins[self.package]


SERVE = {"MODEL": "{model}", "PORT": "{port}"}
ONE, MANY = "one request at a time", f"batches of up to {BATCH}"

PEERS = (
    Peer(
        "fastapi", "FastAPI", "fastapi", ("{bin}/python", "{file}"), "http",
        (
            Variant(f"uvicorn with uvloop and httptools, {ONE}, in the event loop", ("serve.py",)),
            Variant(f"uvicorn with uvloop and httptools, {MANY}, in a thread", ("batching.py",)),
        ),
        SERVE,
    ),
    Peer(
        "litserve", "LitServe", "litserve", ("{bin}/python", "{file}"), "http",
        tuple(
            Variant(f"fast queue, one worker, {said}", ("serve.py",), {"MAX_BATCH_SIZE": str(size)})
            for said, size in ((ONE, 1), (f"{MANY} within 5 ms", BATCH))
        ),
        SERVE,
    ),
    Peer(
        "bentoml", "BentoML", "bentoml",
        ("{bin}/bentoml", "serve", "service:Model", "--host", "127.0.0.1"), "http",
        (Variant(f"one worker with one thread, {ONE}, no access log, no metrics", ("service.py",)),),
        {**SERVE, "BENTOML_PORT": "{port}", "BENTOML_HOME": "{work}/bentoml", "BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        "mlserver", "MLServer", "mlserver", ("{bin}/mlserver", "start", "."), "bytes",
        tuple(
            Variant(
                f"no parallel workers, {said}", ("model.py", "settings.json", "model-settings.json"),
                {"MLSERVER_MODEL_MAX_BATCH_SIZE": str(size), "MLSERVER_MODEL_MAX_BATCH_TIME": str(seconds)},
            )
            for said, size, seconds in ((ONE, 0, 0), (MANY, BATCH, 0.001))
        ),
        {
            "MLSERVER_GRPC_PORT": "{port}", "MLSERVER_HTTP_PORT": "{port2}", "MLSERVER_METRICS_PORT": "{port3}",
            "MLSERVER_MODEL_NAME": "{name}", "MLSERVER_MODEL_PARAMETERS": '{{"uri": "{model}"}}',
        },
    ),
    Peer(
        "pytriton", "PyTriton", "nvidia-pytriton", ("{bin}/python", "{file}"), "grpc",
        tuple(
            Variant(said, ("serve.py",), {"MAX_BATCH_SIZE": str(size)}) for said, size in ((ONE, 1), (MANY, BATCH))
        ),
        {
            **SERVE, "MODEL_NAME": "{name}", "HTTP_PORT": "{port2}", "METRICS_PORT": "{port3}",
            "LD_LIBRARY_PATH": "{libraries}", "PYTRITON_HOME": "{work}/pytriton",
        },
    ),
)  # fmt: skip
