"""What a destination is called: by a person, by fsspec, by Triton, by the chart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonkit import publishing
from tritonkit.errors import OutputError
from tritonkit.publishing import locations


@pytest.mark.parametrize(
    ("text", "endpoint", "root", "uri"),
    [
        ("s3://bucket/a/b/", None, "bucket/a/b", "s3://bucket/a/b/versions/v"),
        ("s3://bucket", None, "bucket", "s3://bucket/versions/v"),
        ("s3://bucket/a", "https://store:9000", "bucket/a", "s3://https://store:9000/bucket/a/versions/v"),
        ("s3://bucket/a", "https://store", "bucket/a", "s3://https://store:443/bucket/a/versions/v"),
        ("s3://http://store:80/bucket/a", None, "bucket/a", "s3://http://store:80/bucket/a/versions/v"),
        ("gs://bucket/a", None, "bucket/a", "gs://bucket/a/versions/v"),
        ("az://container/a", None, "container/a", "as://account/container/a/versions/v"),
        ("as://other/container/a", None, "container/a", "as://other/container/a/versions/v"),
        ("as://other.blob.core.windows.net/container", None, "container", "as://other/container/versions/v"),
    ],
)
def test_triton_is_given_what_it_reads(
    monkeypatch: pytest.MonkeyPatch, text: str, endpoint: str | None, root: str, uri: str
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    place = publishing.parse(text, endpoint)
    assert (place.root, place.uri("v"), place.values("v")) == (root, uri, {"models": {"uri": uri}})
    again, version = locations.split_version(publishing.parse(uri))
    assert (again, version) == (place, "v")


def test_the_environment_may_name_the_store_and_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    assert publishing.parse("s3://bucket").endpoint == "http://store:9000"
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING", "DefaultEndpointsProtocol=https;AccountName=mine;AccountKey=k"
    )
    assert publishing.parse("az://container").account == "mine"


def test_a_claim_is_addressed_from_its_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path in {Path("/"), tmp_path})
    place = publishing.parse(f"file://{tmp_path}/team/models")
    assert place.values("v") == {"models": {"pvc": {"subPath": "team/models/versions/v"}}}
    monkeypatch.setattr(Path, "is_mount", lambda path: path == Path("/"))
    assert place.values("v") == {"models": {"pvc": {"subPath": "versions/v"}}}


@pytest.mark.parametrize(
    "text", ["", "s3:/bucket/models", "gs:bucket", "az:/container", "file:/mnt/models", "~nobody-here/x"]
)
def test_a_mistyped_store_is_no_folder_here(text: str) -> None:
    with pytest.raises(OutputError, match="names no place"):
        publishing.parse(text)


def test_a_path_with_dots_gives_a_sub_path_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path in {Path("/"), tmp_path})
    place = publishing.parse(f"{tmp_path}/team/../models")
    assert place.values("v") == {"models": {"pvc": {"subPath": "models/versions/v"}}}


def test_a_bucket_whose_scheme_was_forgotten_is_no_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="bucket/models is a folder") as refused:
        publishing.parse("bucket/models", "http://store:9000")
    assert "write s3://bucket/models" in refused.value.fix
    assert publishing.parse("bucket/models").root == f"{tmp_path}/bucket/models"
