"""A real OCI registry on loopback: Debian's docker-registry, the reference implementation (CNCF Distribution)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tritonkit.server.ports import free_ports

PROGRAM = "docker-registry"


@contextmanager
def running(folder: Path, users: Path | None = None) -> Iterator[str]:
    """A registry that keeps its files in ``folder``; its address, ``127.0.0.1:PORT``.

    Args:
        folder: For its files and its log.
        users: A file of htpasswd, whose users alone may read and write; everybody without it.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"there is no {PROGRAM}: apt-get install {PROGRAM}")
        pytest.skip(f"there is no {PROGRAM}: apt-get install {PROGRAM}")
    (port,) = free_ports(1)
    config = {"version": 0.1, "log": {"level": "error"}, "storage": {"filesystem": {"rootdirectory": str(folder / "files")}},
              "http": {"addr": f"127.0.0.1:{port}", "secret": "of this test"}}  # fmt: skip
    if users is not None:
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(users)}}
    (folder / "config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with (folder / "registry.log").open("wb") as log:
        registry = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/v2/", registry, folder / "registry.log")
        yield f"127.0.0.1:{port}"
    finally:
        registry.terminate()
        registry.wait(10)


def _wait(url: str, registry: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        assert registry.poll() is None, log.read_text(encoding="utf-8")
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:  # it answers, and wants a password
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(log.read_text(encoding="utf-8"))
