"""What runs on which machine, and what an installer's failure means; nothing here but the standard library.

``build/install.py`` uses it before anything is installed, the commands to refuse a machine that they cannot run on.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass

GLIBC = (2, 35)  # of the embedded server: what its wheel is built for (manylinux_2_35)
IMAGE = "nvcr.io/nvidia/tritonserver:26.09-py3"  # for x86-64 and arm64
CLIENT = "pip install ./clients in a checkout, or from git or its wheel: docs/guides/install.md"
LOAD = "pip install ./loadtests in a checkout, or from git or its wheel: docs/guides/install.md"


@dataclass(frozen=True)
class Support:
    """What works on a machine.

    Attributes:
        commands: Whether ``tritonkit`` itself runs.
        server: Whether the embedded Triton runs, which ``serve``, the demo and the load tests start.
        problem: What does not work, and what does; empty where everything works.
        fix: How to get the rest.
    """

    commands: bool
    server: bool
    problem: str = ""
    fix: str = ""


def support(
    system: str = sys.platform, processor: str = platform.machine(), libc: tuple[str, str] | None = None
) -> Support:
    """What works on a machine, this one by default.

    Args:
        system: As ``sys.platform`` has it.
        processor: As ``platform.machine()`` has it.
        libc: As ``platform.libc_ver()`` has it: name and version; ``("", "")`` for musl.
    """
    if system in ("win32", "cygwin", "msys"):
        return Support(
            False, False,
            "tritonkit runs on Linux, and this is Windows; tritonkit-client runs here, against servers elsewhere",
            "everything works in WSL2: `wsl --install`, then the same command in its shell; or the client alone: "
            f"{CLIENT}",
        )  # fmt: skip
    if system != "linux":
        name = "macOS" if system == "darwin" else system
        return Support(
            False, False,
            f"tritonkit runs on Linux, and this is {name}; tritonkit-client runs here, against servers elsewhere",
            'everything works in a Linux container: docker run --platform linux/amd64 -it -v "$PWD":/work -w /work '
            f"python:3.12 bash; or the client alone: {CLIENT}",
        )  # fmt: skip
    name, version = platform.libc_ver() if libc is None else libc
    if name != "glibc":
        return Support(
            False, False, "this Linux has no glibc (Alpine has musl), for which onnx and Triton have no packages",
            "use a distribution with glibc 2.35 or newer, such as Debian 12 or the image python:3.12",
        )  # fmt: skip
    if processor not in ("x86_64", "AMD64"):
        return Support(
            True, False,
            f"the embedded Triton runs on Linux x86-64, this is linux {processor}: build, lint, publish, deploy and "
            "the client work here; serve, demo, and load tests without a running server (--host) do not",
            "serve with NVIDIA's image: docker run --rm -p 8000-8002:8000-8002 "
            f'-v "$PWD/model_repository":/models {IMAGE} tritonserver --model-repository=/models',
        )  # fmt: skip
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < GLIBC:
        return Support(
            True, False,
            f"the embedded Triton needs glibc 2.35, and this Linux has {version}: all but serving works here",
            f"use Ubuntu 22.04, Debian 12 or newer; or serve with NVIDIA's image, {IMAGE}",
        )  # fmt: skip
    return Support(True, True)


# What pip and uv print, what it means, and what to do. The first that matches counts.
_MEANINGS = (
    (
        r"No space left on device|Errno 28|os error 28|disk quota exceeded",
        "the disk is full",
        "free some space (`df -h .`), or choose other disks: TMPDIR, TRITONKIT_HOME, PIP_CACHE_DIR",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|invalid peer certificate|UnknownIssuer",
        "the certificate of the package index is not trusted; a proxy may stand between",
        "name your authority's file: PIP_CERT=/path/ca.pem and SSL_CERT_FILE=/path/ca.pem",
    ),
    (
        r"NewConnectionError|NameResolutionError|Name or service not known|name resolution|Network is unreachable|"
        r"ConnectTimeout|ReadTimeout|ProxyError|Connection refused|dns error|error sending request|tcp connect error|"
        r"Could not connect|Failed to fetch",
        "no network: the package index cannot be reached",
        "connect this machine and try again; behind a proxy set HTTPS_PROXY; an index of your own is PIP_INDEX_URL "
        "(for uv: UV_DEFAULT_INDEX); for one that is never connected see “Without a network” in docs/guides/install.md",
    ),
    (
        r"from versions: none",
        "no network, or the package index lacks the package",
        "see whether this machine reaches the package index (PIP_INDEX_URL, if set); behind a proxy set HTTPS_PROXY",
    ),
    (
        r"No matching distribution|No solution found|not a supported wheel|ResolutionImpossible",
        "the package index has no such version for this Python and this machine",
        "use Python 3.11 or 3.12; if the index is your own, it lacks that package",
    ),
)  # fmt: skip


def explain_installer(output: str) -> tuple[str, str]:
    """What an installer's failure means, and what to do about it.

    Args:
        output: What pip or uv printed on standard error.
    """
    if re.search(r"from versions: none", output) and os.environ.get("PIP_NO_INDEX"):
        folders = os.environ.get("PIP_FIND_LINKS", "")
        where = (
            f"is not in PIP_FIND_LINKS ({folders})" if folders else "cannot be had, as PIP_FIND_LINKS names no folder"
        )
        return (
            f"PIP_NO_INDEX is set, and the package {where}",
            "put it into that folder: “Without a network” in docs/guides/install.md has the commands; or "
            "unset PIP_NO_INDEX",
        )
    for pattern, meaning, fix in _MEANINGS:
        if re.search(pattern, output, re.IGNORECASE):
            return meaning, fix
    lines = [line for line in output.splitlines() if line.strip()]
    reasons = [line for line in lines if line.lower().startswith("error")] or lines
    return (reasons[-1] if reasons else "no reason was given"), "see what the installer printed above, if anything"
