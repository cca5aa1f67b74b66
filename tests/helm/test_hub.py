"""The chart's download from a hub, run as its container runs it, by the real huggingface_hub against a hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub
import pytest
from manifests import cases, kube, rendering

HUB = {"repository": hub.REPOSITORY, "revision": hub.COMMIT}
FILES = {
    "model.safetensors": os.urandom(300_000),
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "original/consolidated.pth": b"not wanted",
}


@pytest.fixture
def there() -> Iterator[hub.Hub]:
    with hub.serve(dict(FILES)) as running:
        yield running


def container(**weights: Any) -> dict[str, Any]:
    """The rendered init container."""
    values = {"models": {"pvc": {"claimName": "a"}}, "engine": "vllm", "weights": {"hub": HUB, **weights}}
    (pod,) = kube.pods(rendering.documents(rendering.case(values=values)), "Deployment")
    (init,) = [container for container in pod.spec["initContainers"] if container["name"] == "hub"]
    return dict(init)


def download(
    there: hub.Hub, folder: Path, token: str = "", commit: str = hub.COMMIT
) -> subprocess.CompletedProcess[str]:
    """Run the container's own command, with the test's Python and folder."""
    rendered = container()
    command = [sys.executable, *rendered["command"][1:], *rendered["args"]]
    command = [{"/weights": str(folder), hub.COMMIT: commit}.get(word, word) for word in command]
    environment = {"HOME": str(folder.parent), "HF_HOME": str(folder.parent / "home"), "PATH": os.environ["PATH"]}
    environment |= {"HF_ENDPOINT": there.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | (
        {"HF_TOKEN": token} if token else {}
    )
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_weights_are_downloaded_once_and_compared_with_the_hubs_hashes(there: hub.Hub, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    done = download(there, folder)
    assert done.returncode == 0, done.stderr
    assert "every file is what the hub has a hash of" in done.stdout
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (folder / "original").exists()
    fetched = list(there.fetched)
    again = download(there, folder)
    assert again.returncode == 0
    assert "3 files are there" in again.stdout
    assert there.fetched == fetched


def test_a_download_that_is_cut_goes_on_at_the_next_attempt(there: hub.Hub, tmp_path: Path) -> None:
    there.cut = {"model.safetensors"}
    for _ in range(3):
        done = download(there, tmp_path / "weights")
        if done.returncode == 0:
            break
        assert "the download broke off" in done.stderr
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "weights/model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_other_bytes_than_the_hubs_are_no_weights(there: hub.Hub, tmp_path: Path) -> None:
    there.spoiled = {"model.safetensors"}
    done = download(there, tmp_path / "weights")
    assert done.returncode == 1
    assert "model.safetensors is not what the hub has a hash of" in done.stderr
    assert not (tmp_path / "weights/model.safetensors").exists()
    there.spoiled = set()
    assert download(there, tmp_path / "weights").returncode == 0


def test_a_claim_that_is_too_small_is_said_before_it_fills(there: hub.Hub, tmp_path: Path) -> None:
    there.sizes = {"model.safetensors": 1 << 50}
    done = download(there, tmp_path / "weights")
    assert done.returncode == 1
    assert "1048576.0 GiB are missing" in done.stderr
    assert "fix: raise weights.cache.size" in done.stderr
    assert there.fetched == []


@pytest.mark.parametrize(("token", "words"), [("", "no token is given"), ("wrong", "agree to a licence")])
def test_a_wrong_token_is_said_with_its_value(there: hub.Hub, tmp_path: Path, token: str, words: str) -> None:
    there.token = "right"
    done = download(there, tmp_path / "weights", token)
    assert done.returncode == 1
    assert words in done.stderr
    assert "weights.hub.tokenSecret" in done.stderr
    assert download(there, tmp_path / "weights", "right").returncode == 0


def test_a_commit_that_is_not_there_is_no_download(there: hub.Hub, tmp_path: Path) -> None:
    done = download(there, tmp_path / "weights", commit="0" * 40)
    assert "the hub has no such commit" in done.stderr


def test_the_token_comes_from_its_secret_and_pods_may_reach_the_hub() -> None:
    rendered = container(hub={**HUB, "tokenSecret": "hub", "endpoint": "http://hub.example:8443"})
    (token,) = [variable for variable in rendered["env"] if variable["name"] == "HF_TOKEN"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    values = {"models": {"pvc": {"claimName": "a"}}, "engine": "vllm"}
    values["weights"] = {"hub": {**HUB, "endpoint": "http://hub.example:8443"}}
    (policy,) = kube.of_kind(rendering.documents(rendering.case(values=values)), "NetworkPolicy")
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert 8443 in ports


def test_versions_of_weights_have_folders_of_their_own_in_one_claim() -> None:
    def folder(uri: str) -> str:
        values = {"models": {"uri": uri}, "engine": "vllm", "weights": {"cache": {"size": "90Gi"}}}
        documents = rendering.documents(rendering.case(values=values))
        (pod,) = kube.pods(documents, "Deployment")
        (claim,) = kube.of_kind(documents, "PersistentVolumeClaim")
        assert pod.volumes["weights"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        mounts = [m for c in pod.all_containers for m in c["volumeMounts"] if m["mountPath"] == "/models"]
        (sub_path,) = {mount["subPath"] for mount in mounts}
        return str(sub_path)

    assert folder(str(cases.MODELS["uri"])) == folder(str(cases.MODELS["uri"]))
    assert folder(str(cases.MODELS["uri"])) != folder("s3://models.example/versions/20261102-3c4d5e")
