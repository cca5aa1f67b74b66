"""Downloads one commit of a hub's repository into a folder, once, and compares every file with the hub's own hash.

In a pod, before Triton starts, by the huggingface_hub of the engine's image: REPOSITORY COMMIT FOLDER PATTERN...
Pods that share the folder take turns, and the room that the files need is looked for before the first is downloaded.
"""

import fcntl
import hashlib
import os
import pathlib
import shutil
import sys
from fnmatch import fnmatch
from typing import Any, NoReturn

import huggingface_hub
from huggingface_hub import errors

repository, commit, folder, *patterns = sys.argv[1:]
root = pathlib.Path(folder)
record = root / ".tritonkit-hub"  # written last: what lies beside it is whole


def fail(text: str, fix: str) -> NoReturn:
    """End with what is wrong and the fix."""
    sys.exit(f"error: {repository}@{commit[:12]}: {text}\n  fix: {fix}")


def list_files() -> list[Any]:
    """The repository's files whose names match, as the hub lists them with sizes and hashes."""
    try:
        about = huggingface_hub.HfApi().model_info(repository, revision=commit, files_metadata=True)
    except errors.GatedRepoError:
        fail("the hub asks to agree to a licence", "agree on the repository's page, and set weights.hub.tokenSecret")
    except errors.RevisionNotFoundError:
        fail("the hub has no such commit", "copy the commit from Files, History, of the repository's page")
    except errors.RepositoryNotFoundError:
        secret = "its token may not read it" if os.environ.get("HF_TOKEN") else "no token is given"
        fail(f"the hub does not show it: a wrong name, or it is private and {secret}", "set weights.hub.tokenSecret")
    except errors.HfHubHTTPError as error:
        fail(f"the hub answers {error}".splitlines()[0], "a 401 or 403 is the token's: set weights.hub.tokenSecret")
    except Exception as error:  # of whichever HTTP library this release of huggingface_hub has
        fail(
            f"the hub is not reached: {type(error).__name__}: {error}".splitlines()[0],
            "look at weights.hub.endpoint, and at networkPolicy.egress.objectStore, by which pods leave the cluster",
        )
    chosen = [file for file in about.siblings if any(fnmatch(file.rfilename, pattern) for pattern in patterns)]
    if not any(file.rfilename.endswith(".safetensors") for file in chosen):
        fail("there is no *.safetensors among its files", "name another repository, or correct weights.hub.files")
    return chosen


def is_there(file: Any) -> bool:
    """Whether a file has come, by its size."""
    path = root / file.rfilename
    return path.is_file() and path.stat().st_size == file.size


def is_whole(file: Any) -> bool:
    """Whether a file has the hash that the hub has of it: SHA-256 of large files, git's own of small ones."""
    path = root / file.rfilename
    if not is_there(file):
        return False
    digest = hashlib.sha256() if file.lfs else hashlib.sha1(b"blob %d\0" % file.size)
    with path.open("rb") as content:
        while chunk := content.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest() == (file.lfs.sha256 if file.lfs else file.blob_id)


def download() -> None:
    """Bring what is missing, and write the record once all of it is right."""
    files = list_files()
    missing = [file for file in files if not is_there(file)]
    needed, free = sum(file.size for file in missing), shutil.disk_usage(root).free
    if needed > free:
        room = f"{folder} has {free / 2**30:.1f} GiB free, and {needed / 2**30:.1f} GiB are missing"
        fail(room, "raise weights.cache.size, or empty the claim of versions that no pod reads")
    print(f"download {len(missing)} of {len(files)} files, {needed / 2**30:.1f} GiB", flush=True)
    try:
        huggingface_hub.snapshot_download(
            repository, revision=commit, local_dir=root, allow_patterns=[file.rfilename for file in files]
        )
    except Exception as error:  # what came stays, and the next attempt goes on from there
        fail(f"the download broke off: {type(error).__name__}: {error}".splitlines()[0], "the container tries again")
    for file in files:
        if not is_whole(file):
            (root / file.rfilename).unlink(missing_ok=True)
            fail(f"{file.rfilename} is not what the hub has a hash of", "the container downloads it again")
    record.write_text("".join(f"{file.size} {file.rfilename}\n" for file in files))
    print("every file is what the hub has a hash of", flush=True)


with (root / ".tritonkit-hub.lock").open("w") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        print(f"no lock in {folder} ({error.strerror}): pods may download the same file twice", flush=True)
    recorded = [line.split(" ", 1) for line in record.read_text().splitlines()] if record.exists() else []
    sizes = [(root / name, int(size)) for size, name in recorded]
    if sizes and all(path.is_file() and path.stat().st_size == size for path, size in sizes):
        print(f"{len(sizes)} files are there, checked when they came", flush=True)
    else:
        record.unlink(missing_ok=True)
        download()
