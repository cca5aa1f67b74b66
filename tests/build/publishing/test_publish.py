"""Publishing to a real S3 server: what lies there, what Triton reads, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from s3store import Bucket
from strictstore import strict
from support import Project

from tritonkit import publishing
from tritonkit.errors import CheckFailed
from tritonkit.publishing import version_history
from tritonkit.repository import lint, text
from tritonkit.server import TritonServer, runtime
from tritonkit_client import Client

Run = Callable[..., tuple[int, str, str]]
HERE = "s3://models/prod"
TOKENIZER = Path(text.__file__).with_name("tokenizer_model.py")


def published(run: Run, repository: Path, *more: str) -> dict[str, object]:
    code, output, error = run("publish", repository, HERE, "--json", *more)
    assert code == 0, error
    return dict(json.loads(output))


def test_values_say_what_models_need_that_nvidias_image_lacks(run: Run, repository: Path) -> None:
    """The shipped tokenizer's own file, in front of a model of our backend; an ensemble needs what its steps need."""
    tensors = (repository / "double/config.pbtxt").read_text().partition("\n")[2]
    for name, backend, file in (("tok", "python", "model.py"), ("net", "tritonkit_onnxruntime", "model.onnx")):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(f'backend: "{backend}"\n{tensors}')
        (repository / name / "1" / file).write_bytes(TOKENIZER.read_bytes())
    whole = repository / "whole/config.pbtxt"
    whole.write_text(whole.read_text().replace("'double'", "'tok'"))
    models = lint.contents.read(repository, lint.Options())
    assert lint.needs.of_image(models) == {
        "net": ("tritonkit_onnxruntime",), "tok": ("tokenizers",), "whole": ("tokenizers",)
    }  # fmt: skip
    shutil.rmtree(repository / "net")
    report = published(run, repository)
    assert report["values"]["models"]["needs"] == {"tok": ["tokenizers"], "whole": ["tokenizers"]}  # type: ignore[index]


def test_a_version_holds_models_alone_with_the_manifest_beside_it(
    run: Run, repository: Path, bucket: Bucket, tmp_path: Path
) -> None:
    (repository / "README.md").write_text("not a model")
    (repository / ".git").mkdir()
    (repository / ".git/HEAD").write_text("x")
    (repository / "double/1/__pycache__").mkdir()
    (repository / "double/1/__pycache__/model.pyc").write_bytes(b"x")
    (repository / "double/labels.txt").symlink_to(repository / "README.md")
    report = published(run, repository, "--values", str(tmp_path / "values.yaml"))
    version = report["version"]
    assert set(bucket.objects()) == {
        "prod/current.json", f"prod/manifests/{version}.json", f"prod/versions/{version}/double/1/model.py",
        f"prod/versions/{version}/double/config.pbtxt", f"prod/versions/{version}/double/labels.txt",
        f"prod/versions/{version}/whole/1/.empty", f"prod/versions/{version}/whole/config.pbtxt",
    }  # fmt: skip
    assert bucket.get(f"prod/versions/{version}/double/labels.txt") == b"not a model"
    assert report["skipped"] == ["README.md"]
    uri = f"s3://{bucket.endpoint}/models/prod/versions/{version}"
    assert report["uri"] == uri
    values = {"models": {"uri": uri}, "autoscaling": {"ensembles": ["whole"]}}
    assert yaml.safe_load((tmp_path / "values.yaml").read_text()) == report["values"] == values


def test_triton_still_serves_a_published_version_after_the_next(
    run: Run, repository: Path, bucket: Bucket, tmp_path: Path, installed_server: runtime.Runtime
) -> None:
    first = published(run, repository)
    model = repository / "double/1/model.py"
    model.write_text(model.read_text().replace("x * 2", "x * 3"))
    published(run, repository)
    (tmp_path / "nothing").mkdir()
    arguments = [f"--model-repository={first['uri']}"]
    server = TritonServer(tmp_path / "nothing", runtime=installed_server, arguments=arguments)
    with server, Client(server.grpc_url) as client:
        for name in ("double", "whole"):
            assert client.infer(name, x=np.array([21], np.float32))["y"].item() == 42


def test_only_changed_files_are_sent_others_are_copied_in_the_store(run: Run, repository: Path) -> None:
    first = published(run, repository)
    (repository / "whole/labels.txt").write_text("new")
    second = published(run, repository)
    assert second["uploaded"] == ["whole/labels.txt"]
    assert second["copied"] == first["uploaded"]
    third = published(run, repository)
    assert (third["version"], third["uploaded"], third["copied"]) == (second["version"], [], [])


def test_equal_content_is_the_same_version_anywhere(run: Run, repository: Path, tmp_path: Path) -> None:
    place = publishing.parse(str(tmp_path / "destination"))
    assert publishing.publish(repository, place).manifest.version == published(run, repository)["version"]
    fetched = tmp_path / "fetched"
    publishing.fetch(place, fetched)
    again = publishing.publish(fetched, publishing.parse(str(tmp_path / "other")))
    assert again.manifest.version == publishing.Destination(place).manifests()[0].version


def test_a_publisher_killed_midway_switches_nothing_and_can_repeat(
    run: Run, repository: Path, bucket: Bucket, tmp_path: Path
) -> None:
    before = published(run, repository)["version"]
    for number in range(30):
        (repository / f"double/1/part{number}").write_text(f"content {number}")
    command = [str(Path(sys.executable).with_name("tritonkit")), "publish", str(repository), HERE]
    publisher = subprocess.Popen(
        [*command, "--endpoint-url", bucket.endpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(bucket.objects("prod/versions/")) < 10:
        assert publisher.poll() is None
        time.sleep(0.02)
    publisher.send_signal(signal.SIGKILL)
    publisher.wait()
    there = len(bucket.objects("prod/versions/")) - 4
    assert 0 < there < 30
    assert list(bucket.objects("prod/manifests/")) == [f"prod/manifests/{before}.json"]
    assert bucket.current("prod") == before
    (half,) = {key.split("/")[2] for key in bucket.objects("prod/versions/")} - {before}
    code, _, error = run("fetch", f"{HERE}/versions/{half}", tmp_path / "models")
    assert code == 1
    assert "is not whole: its upload did not end" in error
    report = published(run, repository)
    assert report["version"] == half == bucket.current("prod")
    assert len(report["present"]) == there  # type: ignore[arg-type]
    assert run("fetch", HERE, tmp_path / "models")[0] == 0
    assert (tmp_path / "models/double/1/part29").read_text() == "content 29"


SLOW = r"""
import os, sys, time
from tritonkit import cli
from tritonkit.publishing import Destination

def upload(*_):
    os.write(1, b"UPLOADING\n")  # several threads, each whole
    time.sleep(60)

Destination.upload = upload
sys.exit(cli.main(sys.argv[1:]))
"""


def test_ctrl_c_does_not_wait_for_the_files_under_way(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, "publish", str(repository), str(tmp_path / "published")]
    publisher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert publisher.stdout is not None
    assert publisher.stdout.readline() == "UPLOADING\n"
    publisher.send_signal(signal.SIGINT)
    _, error = publisher.communicate(timeout=30)
    assert publisher.returncode == 130
    assert "stopped; the same command goes on where it was" in error
    assert not (tmp_path / "published/current.json").exists()


def test_a_file_spoilt_in_the_store_is_not_copied_but_sent_again(
    run: Run, repository: Path, bucket: Bucket, tmp_path: Path
) -> None:
    first = published(run, repository)["version"]
    bucket.spoil(f"prod/versions/{first}/double/1/model.py")
    (repository / "whole/labels.txt").write_text("new")
    second = published(run, repository)
    assert set(second["uploaded"]) == {"double/1/model.py", "whole/labels.txt"}  # type: ignore[call-overload]
    (repository / "whole/labels.txt").unlink()
    bucket.delete(f"prod/versions/{first}/whole/config.pbtxt")
    repaired = published(run, repository)
    assert repaired["version"] == first
    assert repaired["copied"] == ["double/1/model.py", "whole/config.pbtxt"]
    assert run("fetch", f"{HERE}/versions/{first}", tmp_path / "models")[0] == 0


def test_a_file_that_changes_meanwhile_is_noticed_and_nothing_is_switched(repository: Path, bucket: Bucket) -> None:
    place = publishing.parse(HERE, bucket.endpoint)

    def touch(text: str) -> None:
        if text.startswith("upload"):
            (repository / "double/1/model.py").write_text("half a mod")

    with pytest.raises(CheckFailed, match=r"model\.py changed while it was being published"):
        publishing.publish(repository, place, touch)
    assert not bucket.objects("prod/manifests/")
    assert "prod/current.json" not in bucket.objects()


def test_the_last_of_two_publishers_wins_and_says_so(repository: Path, bucket: Bucket, tmp_path: Path) -> None:
    place = publishing.parse(HERE, bucket.endpoint)
    theirs: list[str] = []

    def another(text: str) -> None:
        if text == "switch":
            config = repository / "double/config.pbtxt"
            old = config.read_bytes()
            config.write_bytes(old + b"# theirs\n")
            theirs.append(publishing.publish(repository, place).manifest.version)

    done = publishing.publish(repository, place, another)
    assert done.notes == (f"another publisher made {theirs[0]} current meanwhile; now {done.manifest.version} is",)
    assert bucket.current("prod") == done.manifest.version != theirs[0]


def test_a_version_pruned_while_it_is_published_is_not_current(repository: Path, bucket: Bucket) -> None:
    place = publishing.parse(HERE, bucket.endpoint)
    destination = publishing.Destination(place)
    first = publishing.publish(repository, place).manifest
    (repository / "whole/labels.txt").write_text("new")
    second = publishing.publish(repository, place).manifest
    destination.drop_manifest(first.version)  # what a pruner does first
    with pytest.raises(CheckFailed, match="was pruned while"):
        version_history.switch(destination, first, destination.pointer())
    assert bucket.current("prod") == second.version
    destination.drop_files(first.version)
    with pytest.raises(CheckFailed, match="is not whole"):
        version_history.switch(destination, first, destination.pointer())
    assert bucket.current("prod") == second.version


def test_a_dry_run_says_what_would_happen_and_writes_nothing(run: Run, repository: Path, bucket: Bucket) -> None:
    report = published(run, repository, "--dry-run")
    assert len(report["uploaded"]) == 4  # type: ignore[arg-type]
    assert not bucket.objects()
    assert "would be published" in run("publish", repository, HERE, "--dry-run")[1]


def test_a_file_in_parts_is_read_back_to_verify_it(
    repository: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 * 2**20  # the smallest that S3 takes, so that a small file has several
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_arguments, **_more: part)
    place = publishing.parse(HERE, bucket.endpoint)
    (repository / "double/1/weights").write_bytes(os.urandom(2**20) * 11)
    version = publishing.publish(repository, place).manifest.version
    key = f"prod/versions/{version}/double/1/weights"
    assert "-3" in bucket.client.head_object(Bucket="models", Key=key)["ETag"]
    assert publishing.publish(repository, place).uploaded == ()
    bucket.spoil(key)
    assert publishing.publish(repository, place).uploaded == ("double/1/weights",)


def test_parts_of_an_upload_that_was_cut_off_are_removed_by_pruning(repository: Path, bucket: Bucket) -> None:
    """They are in no listing, and are paid for."""
    place = publishing.parse(HERE, bucket.endpoint)
    version = publishing.publish(repository, place).manifest.version
    for key in (f"prod/versions/{version}/double/1/weights", "other/weights"):
        bucket.client.create_multipart_upload(Bucket="models", Key=key)
    thirty_years = 30 * 365 * 24 * 60  # moto says that every such upload began in 2010
    for grace_minutes, left in ((thirty_years, 2), (60, 1)):
        publishing.prune(publishing.Destination(place), 1, grace_minutes)
        uploads = bucket.client.list_multipart_uploads(Bucket="models").get("Uploads", [])
        assert len(uploads) == left
    assert uploads[0]["Key"] == "other/weights"


LARGE_BYTES = 160 * 2**20  # s3fs uploads 100 MiB and more in parts, and copies more than 150 MiB so


def test_files_in_parts_are_published_and_verified_as_amazon_demands(
    project: Project, repository: Path, bucket: Bucket
) -> None:
    (repository / "double/1/weights.bin").write_bytes(os.urandom(2**20) * (LARGE_BYTES // 2**20))
    with strict(bucket.endpoint) as (endpoint, refusals):
        versions = []
        for factor in (2, 3):
            model = repository / "double/1/model.py"
            model.write_text(model.read_text().replace("* 2", f"* {factor}"))
            code, output, error = project.run("publish", repository, HERE, "--json", "--endpoint-url", endpoint)
            assert code == 0, error
            versions.append(json.loads(output)["version"])
        assert refusals == []
    assert len(set(versions)) == 2
    sizes = bucket.objects("prod/versions")
    for version in versions:
        assert sizes[f"prod/versions/{version}/double/1/weights.bin"] == LARGE_BYTES


def test_the_strict_server_refuses_parts_of_another_checksum(bucket: Bucket) -> None:
    with strict(bucket.endpoint) as (endpoint, refusals):
        client = boto3.client("s3", endpoint_url=endpoint)
        upload = client.create_multipart_upload(Bucket="models", Key="x", ChecksumAlgorithm="SHA256")["UploadId"]
        with pytest.raises(ClientError, match="expected checksum Type: sha256, actual checksum Type: crc32"):
            client.upload_part(Bucket="models", Key="x", UploadId=upload, PartNumber=1, Body=b"x")
        client.close()
    assert len(refusals) == 1
