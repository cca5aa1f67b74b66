"""What cannot be published or fetched says what, where and what to do, with the right exit code and no traceback."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from s3fs import S3FileSystem  # type: ignore[import-untyped]
from s3store import Bucket
from support import Project

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def guarded(bucket: Bucket) -> Iterator[Bucket]:
    """The S3 server looks at keys."""

    def look(after: str) -> None:
        url, kind = f"{bucket.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, data=after.encode(), headers=kind, method="POST")
        urllib.request.urlopen(request).close()

    look("0")
    yield bucket
    look("inf")


@pytest.fixture
def fresh() -> Iterator[None]:
    """No connection of an earlier test, which has its keys, is used, and none is left."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


def refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    """Check the exit code, the words, and that there is a fix and no traceback."""
    assert result[0] == code, result
    for word in (*words, "fix: "):
        assert word in result[2], result[2]
    assert "Traceback" not in result[2]


def test_wrong_keys(run: Run, repository: Path, guarded: Bucket, tmp_path: Path) -> None:
    words = ("s3://models/prod at http://127.0.0.1", "refuses access")
    refused(run("publish", repository, "s3://models/prod"), 2, *words, "correct the access key")
    refused(run("fetch", "s3://models/prod", tmp_path / "models"), 2, *words, "s3:GetObject", "look at the key itself")


@pytest.mark.parametrize(
    ("code", "sentence", "fix"),
    [
        ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", "clock"),
        ("ExpiredToken", "The provided token has expired.", "log in again"),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match.", "correct the secret key"),
    ],
)
def test_a_403_that_is_not_about_rights_does_not_send_for_rights(
    code: str, sentence: str, fix: str, project: Project, repository: Path, bucket: Bucket, fresh: None
) -> None:
    """A store that answers every request as S3 does for that code."""
    body = f"<Error><Code>{code}</Code><Message>{sentence}</Message></Error>".encode()

    class Store(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        result = project.run("publish", repository, "s3://models/prod", "--endpoint-url", endpoint)
        server.shutdown()
    refused(result, 2, "refuses access", fix)
    assert "s3:PutObject" not in result[2]


def test_no_keys(run: Run, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    refused(run("publish", repository, "s3://models/prod"), 3, "no credentials for s3://models/prod", "AWS_PROFILE")


def test_no_such_bucket(run: Run, repository: Path, tmp_path: Path) -> None:
    for command in (
        ("publish", repository, "s3://absent/prod"),
        ("versions", "s3://absent/prod"),
        ("rollback", "s3://absent/prod"),
        ("fetch", "s3://absent/prod", tmp_path / "models"),
    ):
        refused(run(*command), 2, "there is no bucket absent at http://127.0.0.1", "make the bucket")


def test_an_endpoint_that_nobody_answers(bucket: Bucket, project: Project, repository: Path) -> None:
    result = project.run("publish", repository, "s3://models/prod", "--endpoint-url", "http://127.0.0.1:9")
    refused(result, 3, "s3://models/prod at http://127.0.0.1:9 cannot be reached", "check the endpoint")


@pytest.mark.parametrize(
    ("package", "uri", "extra"),
    [("s3fs", "s3://a/b", "s3"), ("gcsfs", "gs://a/b", "gcs"), ("adlfs", "as://account/a/b", "azure")],
)
def test_a_store_whose_package_is_not_installed(
    project: Project, repository: Path, monkeypatch: pytest.MonkeyPatch, package: str, uri: str, extra: str
) -> None:
    from fsspec.registry import _registry  # type: ignore[import-untyped]

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    refused(
        project.run("publish", repository, uri), 3, f"needs the package {package}", f"pip install 'tritonkit[{extra}]'"
    )


def test_a_place_with_somebody_elses_files(run: Run, project: Project, repository: Path, bucket: Bucket) -> None:
    bucket.put("prod/data.csv", b"x")
    refused(
        run("publish", repository, "s3://models/prod"), 2, "did not put there: data.csv", "s3://models/prod/published"
    )
    refused(run("versions", "s3://models"), 2, "did not put there: prod")
    assert run("publish", repository, "s3://models/prod/published")[0] == 0
    refused(project.run("publish", repository, repository / "double"), 2, "lie in each other")
    version = bucket.current("prod/published")
    bucket.put(f"prod/published/versions/{version}/mine/config.pbtxt", b"x")
    refused(
        run("publish", repository, "s3://models/prod/published"), 2, "mine/config.pbtxt is not part of that version"
    )


def test_a_full_disk_leaves_the_current_version(
    project: Project, repository: Path, mounted: Callable[[str], Path]
) -> None:
    place = mounted("size=1m")
    assert project.run("publish", repository, place)[0] == 0
    before = (place / "current.json").read_text()
    (repository / "double/1/weights").write_bytes(b"x" * 2**21)
    refused(project.run("publish", repository, place), 3, f"no space left at {place}")
    assert (place / "current.json").read_text() == before


def test_a_read_only_folder(project: Project, repository: Path, mounted: Callable[[str], Path]) -> None:
    place = mounted("ro")
    refused(project.run("publish", repository, place), 2, str(place), "another place")


def test_a_repository_that_lint_refuses(run: Run, repository: Path, bucket: Bucket) -> None:
    (repository / "double/config.pbtxt").write_text("nonsense {")
    refused(run("publish", repository, "s3://models/prod"), 1, "lint finds errors", "double: ", "tritonkit lint")
    assert not bucket.objects()


def test_links_to_nothing_and_to_themselves(project: Project, repository: Path, tmp_path: Path) -> None:
    for place, code, words in (
        ("double/labels.txt", 1, "'labels.txt' is a link to nothing"),  # lint: Triton would not load the model
        ("double/1/notes.txt", 2, "notes.txt is a link to nothing"),
    ):
        (repository / place).symlink_to("absent")
        refused(project.run("publish", repository, tmp_path / "a"), code, words)
        (repository / place).unlink()
    (repository / "double/again").symlink_to(repository / "double")
    refused(project.run("publish", repository, tmp_path / "a"), 2, "is a link to a folder that it is in")


def test_a_name_that_triton_cannot_read_from_another_endpoint(run: Run, repository: Path) -> None:
    (repository / "double/a label.txt").write_text("x")
    refused(run("publish", repository, "s3://models/prod"), 2, "cannot read a name like 'a label.txt'")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ftp://a/b", "there is no store ftp://"),
        ("s3://", "names no bucket"),
        ("file://models", "three slashes"),
        ("s3://a/b c", "a place called 'b c'"),
        ("az://container/models", "which storage account"),
        ("s3://http://a:x/b", "is no URL"),
    ],
)
def test_a_destination_that_is_none(project: Project, repository: Path, text: str, word: str) -> None:
    refused(project.run("publish", repository, text), 2, word)
