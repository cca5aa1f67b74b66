"""Turns a refusal of a store or its library into an error that says what, where, and what to do.

Libraries are known by the names of their exceptions, so that none has to be installed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tritonkit.errors import MissingError, OutputError, TritonkitError
from tritonkit.publishing.locations import Place

# botocore, google-auth, azure-core and azure-identity, aiohttp, in that order.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "TokenRetrievalError", "DefaultCredentialsError", "RefreshError", "CredentialUnavailableError",
}  # fmt: skip
_REFUSED = {"ClientAuthenticationError"}
_UNREACHABLE = {
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "SSLError",
    "ProxyConnectionError", "TransportError", "ServiceRequestError", "ServiceResponseError", "ClientConnectorError",
    "ClientConnectorDNSError", "ServerDisconnectedError", "ConnectionRefusedError", "ConnectionResetError",
    "TimeoutError", "FSTimeoutError",
}  # fmt: skip
_LIBRARIES = ("botocore", "aiobotocore", "google", "gcsfs", "azure", "adlfs", "aiohttp", "s3fs", "fsspec")
_LOGIN = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; in a pod, annotate its service account",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY, or run `az login`",
    "file": "give yourself the right to write there",
}
_RIGHTS = {
    "s3": "use keys with s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject on it",
    "gs": "use an identity with the role Storage Object User on it",
    "az": "use an identity with the role Storage Blob Data Contributor on it",
    "file": "give yourself the right to write there, or choose another place",
}
# Words of a refusal that is not about rights, and what leads on: codes and sentences of S3, Azure and Google.
_CAUSES = (
    (("RequestTimeTooSkewed", "request time and the current time", "date header too old", "reasonable timeframe"),
     "set this machine's clock: stores refuse what is minutes early or late; `timedatectl` shows it"),
    (("ExpiredToken", "token has expired", "token is expired"), "log in again: the credentials have expired"),
    (("SignatureDoesNotMatch", "signature you provided does not match", "does not match the signature"),
     "correct the secret key: it is not that of the access key"),
    (("InvalidAccessKeyId", "Key Id you provided does not exist"), "correct the access key: nobody has it"),
)  # fmt: skip
_UNEXPLAINED = "Forbidden"  # all that an answer without a body says, as to HEAD


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Translate the store's refusals while the block runs; other exceptions pass through."""
    try:
        yield
    except TritonkitError:
        raise
    except Exception as error:
        translated = _translated(error, place)
        if translated is None:
            raise
        raise translated from error


def missing_bucket(place: Place) -> OutputError:
    """The error for a bucket, container or folder that is not there."""
    if place.scheme == "file":
        return OutputError(f"there is no folder {place.root}", "correct the path")
    kind = "container" if place.scheme == "az" else "bucket"
    at = f" at {place.endpoint}" if place.endpoint else ""
    return OutputError(f"there is no {kind} {place.bucket}{at}", f"make the {kind}, or correct its name")


def _translated(error: Exception, place: Place) -> TritonkitError | None:
    chain = _chain(error)
    names = {type(link).__name__ for link in chain}
    where = f"{place}{f' at {place.endpoint}' if place.endpoint else ''}"
    sentence = _sentence(error)
    words = " ".join(str(link) for link in chain)
    for signs, fix in _CAUSES:
        if any(sign in words for sign in signs):
            return OutputError(f"{where} refuses access: {sentence}", fix)
    if names & _NO_CREDENTIALS:
        return MissingError(f"no credentials for {where}: {sentence}", _LOGIN[place.scheme])
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        return MissingError(f"no space left at {where}", "free some space, or choose another place")
    if numbers & {errno.EROFS, errno.EACCES, errno.EPERM} or names & _REFUSED or _is_refusal(chain):
        hint = (
            "; if it has these, look at the key itself and at this machine's clock" if sentence == _UNEXPLAINED else ""
        )
        return OutputError(f"{where} refuses access: {sentence}", _RIGHTS[place.scheme] + hint)
    if names & _UNREACHABLE:
        return MissingError(f"{where} cannot be reached: {sentence}", "check the endpoint, the network and the proxy")
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES:
        return OutputError(
            f"{where}: {sentence}", "correct that, and run the same command again: it goes on where it was"
        )
    return None


def _is_refusal(chain: list[BaseException]) -> bool:
    """Also a status of 401 or 403 in the exceptions of gcsfs, azure-core and aiohttp."""
    return any(
        isinstance(link, PermissionError)
        or {getattr(link, name, None) for name in ("code", "status", "status_code")} & {401, 403}
        for link in chain
    )


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _sentence(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((text or type(error).__name__).split())[:300]
