"""What a destination's name means: which store, which folder in it, and what Triton and the chart call it.

It opens the store through fsspec; what lies there is :mod:`tritonkit.publishing.destination`'s.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]

from tritonkit.errors import MissingError, OutputError

Scheme = Literal["s3", "gs", "az", "file"]
# scheme: fsspec's package, and our extra that installs it.
_PACKAGES: dict[Scheme, tuple[str, str]] = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "az": ("adlfs", "azure")}
_ALIASES = {"gcs": "gs", "as": "az", "abfs": "az", "abfss": "az", "s3a": "s3"}
# What the pattern in Triton's core, src/filesystem/implementations/s3.h, lets stand after host and port.
TRITON_NAME = re.compile(r"[0-9a-zA-Z._-]+")
VERSIONS = "versions"
_CONNECT_TIMEOUT_S = 10
# s3fs holds 50 MiB for each part on its way; times the eight files of a transfer, its own 10 would be 4 GB.
_PARTS_AT_ONCE = 2
_HELP = "write s3://bucket/folder, gs://bucket/folder, az://container/folder, file:///folder, or a path"


@dataclass(frozen=True)
class Place:
    """A folder in a store.

    Attributes:
        scheme: Which kind of store.
        root: The folder as fsspec names it: ``bucket/folder``, or an absolute path.
        endpoint: URL of a store that is not the vendor's own, with its port; empty otherwise.
        account: Azure's storage account; empty elsewhere.
    """

    scheme: Scheme
    root: str
    endpoint: str = ""
    account: str = ""

    def __str__(self) -> str:
        return self.root if self.scheme == "file" else f"{self.scheme}://{self.root}"

    @property
    def bucket(self) -> str:
        """The bucket or container; the whole path of a folder."""
        return self.root if self.scheme == "file" else self.root.partition("/")[0]

    def path(self, *parts: str) -> str:
        """Something below the folder, as fsspec names it."""
        return "/".join([self.root.rstrip("/"), *parts])

    def uri(self, version: str) -> str:
        """What Triton is given as ``--model-repository`` to read a version."""
        folder = self.path(VERSIONS, version)
        if self.scheme == "s3" and self.endpoint:
            return f"s3://{self.endpoint}/{folder}"
        if self.scheme == "az":
            return f"as://{self.account}/{folder}"
        return folder if self.scheme == "file" else f"{self.scheme}://{folder}"

    def values(
        self, version: str, ensembles: tuple[str, ...] = (), needs: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, Any]:
        """The chart's values that name a version, which of its models are ensembles, and what they need of an image.

        For a folder, ``subPath`` counts from the mount point that holds it, which is the claim's root; where nothing
        is mounted, from the folder itself.
        """
        more = {"autoscaling": {"ensembles": list(ensembles)}} if ensembles else {}
        needed = {"needs": {name: list(words) for name, words in needs.items()}} if needs else {}
        if self.scheme != "file":
            return {"models": {"uri": self.uri(version)} | needed} | more
        folder = Path(self.root)
        mount = next(place for place in (folder, *folder.parents) if place.is_mount())
        base = folder if mount == Path("/") else mount
        path = (folder / VERSIONS / version).relative_to(base).as_posix()
        return {"models": {"pvc": {"subPath": path}} | needed} | more


def parse(text: str, endpoint_url: str | None = None) -> Place:
    """The place that a person named.

    Args:
        text: ``s3://``, ``gs://``, ``az://container/…``, Triton's own ``as://account/container/…`` and
            ``s3://http://host:port/bucket/…``, ``file:///…``, or a path.
        endpoint_url: URL of an S3-compatible store, or of an emulator.

    Raises:
        OutputError: ``text`` names no place.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text or re.match(rf"({'|'.join([*get_args(Scheme), *_ALIASES])}):", text):
            raise OutputError(f"{text!r} names no place", _HELP)
        if endpoint_url:  # of a store, so the scheme was forgotten
            raise OutputError(f"{text} is a folder, and {endpoint_url} the address of a store",
                              f"write s3://{text.strip('/')}, or leave the address out")  # fmt: skip
        try:
            return Place("file", os.path.normpath(Path(text).expanduser().absolute()))
        except RuntimeError as error:
            raise OutputError(f"{text} names no place: {error}", "write the whole path") from None
    scheme = _ALIASES.get(scheme, scheme)
    if scheme == "file":
        if not rest.startswith("/"):
            raise OutputError(f"{text} names no absolute path", "write file:///folder, with three slashes")
        return Place("file", os.path.normpath(rest))
    for known in get_args(Scheme):
        if scheme == known:
            return _remote(known, text, rest, endpoint_url)
    raise OutputError(f"{text}: there is no store {scheme}://", _HELP)


def _remote(scheme: Scheme, text: str, rest: str, endpoint_url: str | None) -> Place:
    account = endpoint = ""
    if scheme == "s3":
        endpoint, rest = _s3_endpoint(rest, endpoint_url)
    elif endpoint_url:
        endpoint = endpoint_url.rstrip("/")
    parts = [part for part in rest.split("/") if part]
    if scheme == "az":
        if text.startswith("as://"):
            account, parts = (parts[0] if parts else "").removesuffix(".blob.core.windows.net"), parts[1:]
        account = account or _azure_account()
    if not parts:
        raise OutputError(f"{text} names no {'container' if scheme == 'az' else 'bucket'}", _HELP)
    for part in parts:
        if part in {".", ".."} or not TRITON_NAME.fullmatch(part):
            raise OutputError(
                f"{text}: Triton cannot read a place called {part!r}", "use letters, digits, dots, hyphens, underscores"
            )
    return Place(scheme, "/".join(parts), endpoint, account)


def _s3_endpoint(rest: str, endpoint_url: str | None) -> tuple[str, str]:
    """The store's URL with its port, which Triton wants, and what is left of the destination."""
    written = re.match(r"(https?://[^/]+)/*", rest)
    if written:
        endpoint_url, rest = written[1], rest[written.end() :]
    endpoint_url = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint_url:
        return "", rest
    try:
        parts = urlsplit(endpoint_url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise OutputError(f"the endpoint {endpoint_url} is no URL", "write http://host:port or https://host") from None
    return f"{parts.scheme}://{parts.hostname}:{port}", rest


def split_version(place: Place) -> tuple[Place, str]:
    """A place that ends in ``versions/VERSION`` as what it is in, and the version; empty if it ends otherwise."""
    path = PurePosixPath(place.root)
    if path.parent.name != VERSIONS:
        return place, ""
    return replace(place, root=str(path.parent.parent)), path.name


def connect(place: Place) -> Any:
    """The filesystem of the store (fsspec's ``AbstractFileSystem``); nothing is sent yet.

    Raises:
        MissingError: The package for this store is not installed.
    """
    for name in _PACKAGES.get(place.scheme, ())[:1]:  # what they log (tracebacks too) is raised as well, and told once
        logging.getLogger(name).addHandler(logging.NullHandler())
    options: dict[str, Any] = {"use_listings_cache": False}
    if place.scheme == "file":
        options |= {"auto_mkdir": True}
    elif place.scheme == "s3":
        options |= {"max_concurrency": _PARTS_AT_ONCE}
        options |= {"config_kwargs": {"connect_timeout": _CONNECT_TIMEOUT_S, "retries": {"max_attempts": 2}}}
        if place.endpoint:  # as Triton addresses it
            options["config_kwargs"]["s3"] = {"addressing_style": "path"}
            options["endpoint_url"] = place.endpoint
    elif place.scheme == "gs":
        options |= {"endpoint_url": place.endpoint} if place.endpoint else {}
    else:
        options |= _azure_options(place)
    try:
        return fsspec.filesystem(place.scheme, **options)
    except ImportError as error:
        package, extra = _PACKAGES[place.scheme]
        raise MissingError(f"{place} needs the package {package}", f"pip install 'tritonkit[{extra}]'") from error


def _first(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name))), "")


def _azure_account() -> str:
    match = re.search(r"AccountName=([^;]+)", _first("AZURE_STORAGE_CONNECTION_STRING"))
    account = match[1] if match else _first("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise OutputError(
            "az://container/… does not say which storage account",
            "set AZURE_STORAGE_ACCOUNT, or write as://account/container/folder",
        )
    return account


def _azure_options(place: Place) -> dict[str, Any]:
    """What the environment says, in Triton's names and in Azure's; workload identity where it says nothing."""
    if connection := _first("AZURE_STORAGE_CONNECTION_STRING"):
        return {"connection_string": connection}
    options: dict[str, Any] = {"account_name": place.account}
    if place.endpoint:
        options["account_host"] = urlsplit(place.endpoint).netloc
    if key := _first("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"):
        return options | {"account_key": key}
    if token := _first("AZURE_STORAGE_SAS_TOKEN"):
        return options | {"sas_token": token}
    return options | {"anon": False}
