"""What lies at a destination: versions, their manifests, and the pointer to the current one.

::

    DESTINATION/versions/VERSION/MODEL/…    a whole repository, which Triton reads; never changed once published
    DESTINATION/manifests/VERSION.json      written last: a version without one is not published
    DESTINATION/current.json                which version is current, and which was before

It reads and writes these; the order in which that is safe is :mod:`tritonkit.publishing.publish`'s and
:mod:`tritonkit.publishing.version_history`'s.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tritonkit import atomic
from tritonkit.errors import CheckFailed, OutputError
from tritonkit.publishing import errors, manifest
from tritonkit.publishing.contents import CHUNK_BYTES
from tritonkit.publishing.locations import VERSIONS, Place, connect
from tritonkit.publishing.manifest import File, Manifest

MANIFESTS = "manifests"
POINTER = "current.json"
_INCOMING = ".incoming"  # files on their way into a folder; nobody reads it
THREADS = 8
# What S3 takes in one request, and of how many parts a larger object may consist (Amazon S3 quotas).
S3_ONE_PIECE_BYTES = 5 * 2**30
MOST_PARTS = 10_000
PART_BYTES = 50 * 2**20


@dataclass(frozen=True)
class Pointer:
    """Which version is current.

    Attributes:
        version: The current one.
        previous: The one before it; empty if there was none.
        switched: When, in ISO 8601, UTC.
    """

    version: str
    previous: str
    switched: str


@dataclass(frozen=True)
class Stored:
    """A stored file's size in bytes, and when it was written."""

    size: int
    written: datetime


class Destination:
    """A destination.

    Args:
        place: Where it is.

    Raises:
        MissingError: The package for this store is not installed.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.fs: Any = connect(place)

    def check(self, *, make: bool = False) -> None:
        """Refuse a destination that is not there, or that holds what is not ours.

        Args:
            make: Whether the folder may be missing, as it will be made.

        Raises:
            OutputError: The destination is missing, or holds something else.
        """
        if self.place.scheme == "file":
            if Path(self.place.root).exists() and not Path(self.place.root).is_dir():
                raise OutputError(f"{self.place.root} is not a folder", "name a folder")
            if not make and not Path(self.place.root).is_dir():
                raise errors.missing_bucket(self.place)
        names = {entry["name"].rstrip("/").rpartition("/")[2] for entry in self._list(self.place.root)}
        if not names and self.place.scheme != "file":
            self._check_bucket()
        ours = {VERSIONS, MANIFESTS, POINTER, "", "lost+found", self.place.root.rpartition("/")[2]}
        strange = sorted(name for name in names - ours if not name.startswith("."))
        if strange:
            raise OutputError(
                f"{self.place} holds what `tritonkit publish` did not put there: {', '.join(strange[:5])}",
                f"name a folder of its own, for example {self.place}/published",
            )

    def _check_bucket(self) -> None:
        try:
            self.fs.info(self.place.bucket)
        except FileNotFoundError:
            raise errors.missing_bucket(self.place) from None

    def _list(self, path: str) -> list[dict[str, Any]]:
        try:
            return list(self.fs.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def manifest(self, version: str) -> Manifest | None:
        """A published version's manifest."""
        path = self._manifest_path(version)
        data = self._read(path)
        if data is None:
            return None
        parsed = manifest.parse(data, path)
        if parsed.version != version:
            raise CheckFailed(f"{path} is the manifest of {parsed.version}", "publish that version again")
        return parsed

    def manifests(self) -> list[Manifest]:
        """Those of all published versions, the newest first."""
        names = [entry["name"].rpartition("/")[2] for entry in self._list(self.place.path(MANIFESTS))]
        versions = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        with ThreadPoolExecutor(THREADS) as pool:
            read = pool.map(self.manifest, filter(manifest.is_version, versions))
            return sorted(filter(None, read), key=lambda entry: entry.published, reverse=True)

    def pointer(self) -> Pointer | None:
        """Which version is current; None if none was ever published."""
        path = self.place.path(POINTER)
        data = self._read(path)
        if data is None:
            return None
        try:
            return TypeAdapter(Pointer).validate_json(data)
        except ValidationError:
            raise OutputError(
                f"{path} is not what `tritonkit publish` writes", "remove it, and publish again"
            ) from None

    def put_manifest(self, written: Manifest) -> None:
        """Write the manifest of a version whose files are all there, which publishes it."""
        self._write(self._manifest_path(written.version), written.as_json())

    def drop_manifest(self, version: str) -> None:
        """Remove a version's manifest, which makes it unpublished."""
        with suppress(FileNotFoundError):  # another pruner was here
            self.fs.rm_file(self._manifest_path(version))

    def switch(self, version: str, previous: str) -> None:
        """Make a version current."""
        pointer = Pointer(version, previous, now())
        self._write(self.place.path(POINTER), json.dumps(asdict(pointer), indent=1).encode())

    def started(self) -> list[str]:
        """Versions that have files, published or not."""
        names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in self._list(self.place.path(VERSIONS)))
        return sorted(filter(manifest.is_version, names))

    def files(self, version: str) -> dict[str, Stored]:
        """What a version's folder holds: path in the repository to what is stored."""
        root = self.place.path(VERSIONS, version)
        try:
            infos = self.fs.find(root, detail=True)
        except FileNotFoundError:
            return {}
        return {
            name.removeprefix(root).lstrip("/"): Stored(int(info["size"]), _written(info))
            for name, info in infos.items()
            if name.startswith(f"{root}/")
            and not name.endswith("/")  # a folder made in a web console is a name with a slash
        }

    def drop_files(self, version: str) -> None:
        """Remove a version's folder."""
        root = self.place.path(VERSIONS, version)
        with suppress(FileNotFoundError):  # another pruner is at it
            if self.fs.exists(root):
                self.fs.rm(root, recursive=True)

    def sweep(self, before: datetime) -> None:
        """Remove parts of files whose upload was cut off before that moment; nobody can see them, but they cost.

        Where a store does not list them, or not to these keys, they stay: a rule of the bucket may remove them.
        """
        if self.place.scheme == "file":
            for path in Path(self.place.path(_INCOMING)).glob("*"):
                if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                    path.unlink(missing_ok=True)
        elif self.place.scheme == "s3":
            with suppress(OSError):
                self._abort_uploads(before)

    def _abort_uploads(self, before: datetime) -> None:
        bucket, _, prefix = self.place.path(VERSIONS, "").partition("/")
        page: dict[str, str] = {}
        while True:
            response = self.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **page)
            for upload in response.get("Uploads", []):
                if upload["Initiated"] < before:
                    self.fs.call_s3(
                        "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
            if not response.get("IsTruncated"):
                return
            page = {"KeyMarker": response["NextKeyMarker"], "UploadIdMarker": response["NextUploadIdMarker"]}

    def file(self, version: str, path: str) -> str:
        """A file of a version, as fsspec names it."""
        return self.place.path(VERSIONS, version, path)

    def chunks(self, version: str, path: str, offset: int = 0) -> Iterator[bytes]:
        """A stored file's bytes from ``offset`` on, in pieces.

        Raises:
            FileNotFoundError: The file is missing.
        """
        name = self.file(version, path)
        size = int(self.fs.info(name)["size"])
        while offset < size:
            chunk = self.fs.cat_file(name, start=offset, end=min(offset + CHUNK_BYTES, size))
            if not chunk:
                return
            yield chunk
            offset += len(chunk)

    def holds(self, version: str, file: File) -> bool:
        """Whether the store has that content: its own SHA-256 says so where it keeps one, else the bytes read back."""
        if self._kept_sha256(self.file(version, file.path)) == file.sha256:
            return True
        sha256 = hashlib.sha256()
        for chunk in self.chunks(version, file.path):
            sha256.update(chunk)
        return sha256.hexdigest() == file.sha256

    def _kept_sha256(self, name: str) -> str:
        """The SHA-256 that S3 keeps of an object that was sent in one piece or copied with that option; or empty."""
        if self.place.scheme != "s3":
            return ""
        bucket, _, key = name.partition("/")
        try:
            response = self.fs.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except OSError:  # a store that does not know the header
            return ""
        encoded = str(response.get("ChecksumSHA256", ""))  # of parts, it ends with their number
        return "" if "-" in encoded else base64.b64decode(encoded).hex()

    def upload(self, version: str, path: str, origin: Path | bytes) -> None:
        """Store one file."""
        name = self.file(version, path)
        if self.place.scheme == "file":
            self._place(name, origin)
            return
        if self.place.scheme != "s3":
            if isinstance(origin, bytes):
                self.fs.pipe_file(name, origin)
            else:
                self.fs.put_file(str(origin), name)
            return
        size = len(origin) if isinstance(origin, bytes) else origin.stat().st_size
        part = max(PART_BYTES, -(-size // MOST_PARTS))
        in_parts = size >= min(2 * part, S3_ONE_PIECE_BYTES)  # where s3fs begins to send parts
        if isinstance(origin, bytes):
            self.fs.pipe_file(name, origin, chunksize=part, **_sha256_kept(in_parts))
        else:
            self.fs.put_file(str(origin), name, chunksize=part, **_sha256_kept(in_parts))

    def copy(self, version: str, file: File, source: tuple[str, str]) -> None:
        """Store a file that another version has, without its bytes passing through here.

        Args:
            version: Where to.
            file: What.
            source: The other version and the path in it.
        """
        if self.place.scheme == "file":
            self._place(self.file(version, file.path), Path(self.file(*source)))
            return
        options = {}
        if self.place.scheme == "s3":
            from s3fs.core import MANAGED_COPY_THRESHOLD  # type: ignore[import-untyped]  # above which it copies in parts

            options = _sha256_kept(file.size > MANAGED_COPY_THRESHOLD)
        self.fs.cp_file(self.file(*source), self.file(version, file.path), **options)

    def settle(self, version: str) -> None:
        """Make a version's files durable; object stores did that with each."""
        if self.place.scheme == "file":
            atomic.sync_tree(Path(self.place.path(VERSIONS, version)))

    def _place(self, name: str, origin: Path | bytes) -> None:
        """A copy beside, then a rename: two publishers of one version do not see each other's halves."""
        beside = Path(self.place.path(_INCOMING, f"{os.getpid()}-{threading.get_ident()}"))
        beside.parent.mkdir(parents=True, exist_ok=True)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        try:
            if isinstance(origin, bytes):
                beside.write_bytes(origin)
            else:
                self.fs.cp_file(str(origin), str(beside))
            beside.replace(name)
        finally:
            beside.unlink(missing_ok=True)

    def _manifest_path(self, version: str) -> str:
        return self.place.path(MANIFESTS, f"{version}.json")

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self.fs.cat_file(path))
        except FileNotFoundError:
            return None

    def _write(self, path: str, data: bytes) -> None:
        """One small file, whole or not at all: object stores do so by themselves."""
        if self.place.scheme == "file":
            atomic.write(Path(path), data)
        else:
            self.fs.pipe_file(path, data)


def _sha256_kept(in_parts: bool) -> dict[str, str]:
    """The option by which S3 keeps an object's SHA-256; none for what goes in parts, which are then read back.

    An upload in parts that asks for SHA-256 must carry it with every part, and s3fs sends each with botocore's CRC32:
    Amazon refuses the first one (fsspec/s3fs#672).
    """
    return {} if in_parts else {"ChecksumAlgorithm": "SHA256"}


def now() -> str:
    """This moment in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _written(info: dict[str, Any]) -> datetime:
    """When a stored file was written; this moment where the store does not say."""
    for name in ("LastModified", "updated", "last_modified", "mtime"):
        written = info.get(name)
        if isinstance(written, int | float):
            return datetime.fromtimestamp(written, UTC)
        if isinstance(written, str) and written:
            written = datetime.fromisoformat(written)
        if isinstance(written, datetime):
            return written if written.tzinfo else written.replace(tzinfo=UTC)
    return datetime.now(UTC)
