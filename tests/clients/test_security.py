"""Encryption, certificates, tokens and headers, against a real Triton: gRPC by itself, HTTP behind a TLS relay."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from models import add_model, write_models
from textmodels import script, text_models

from tritonkit.server import TritonServer
from tritonkit_client import (
    TLS,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    Unauthenticated,
)

Connect = Callable[..., Client]
SECRET = "s3cret-t0ken"


@dataclass
class Papers:
    """Files of an authority, of a server and a client that it signed, and of another authority."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    stranger: Path


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    authority = trustme.CA()

    def write(name: str, *identities: str) -> tuple[Path, Path]:
        issued = authority.issue_cert(*identities)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    server = write("server", "127.0.0.1", "models.internal")
    return Papers(folder / "ca.pem", server, write("client", "app@example.org"), folder / "stranger.pem")


@pytest.fixture(scope="module")
def guarded(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton that wants certificates over gRPC, and a key for calls that change its models."""
    repository = tmp_path_factory.mktemp("guarded")
    write_models(repository, "arithmetic", "inspect")
    add_model(repository, "llama", *text_models()["llama"])
    certificate, key = papers.server
    arguments = (
        "--grpc-use-ssl=1", "--grpc-use-ssl-mutual=1", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}",
        f"--grpc-root-cert={papers.ca}", "--grpc-restricted-protocol=model-repository:admin-key=open",
        "--http-restricted-api=model-repository:admin-key=open", "--grpc-header-forward-pattern=.*",
        "--http-header-forward-pattern=.*",
    )  # fmt: skip
    with TritonServer(repository, arguments=arguments, exit_timeout_s=1) as running:
        yield running


@pytest.fixture(scope="module")
def relay(papers: Papers, guarded: TritonServer) -> Iterator[int]:
    """The port of a TLS gateway before Triton's HTTP, which wants certificates too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=papers.ca)
    context.load_cert_chain(*papers.server)
    context.verify_mode = ssl.CERT_REQUIRED

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def serve(plain: socket.socket) -> None:
        with (
            suppress(OSError),
            plain,
            context.wrap_socket(plain, server_side=True) as sock,
            socket.create_connection(("127.0.0.1", guarded.ports["http"])) as behind,
        ):
            back = threading.Thread(target=copy, args=(behind, sock), daemon=True)
            back.start()
            copy(sock, behind)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.fixture(params=["grpcs", "https"])
def safe(request: pytest.FixtureRequest, guarded: TritonServer, relay: int) -> str:
    port = guarded.ports["grpc"] if request.param == "grpcs" else relay
    return f"{request.param}://127.0.0.1:{port}"


def test_a_certificate_from_each_side_makes_a_connection(safe: str, papers: Papers, connect: Connect) -> None:
    client = connect(safe, tls=TLS(papers.ca, *papers.client), timeout=5)
    assert client.ready()
    array = np.random.default_rng(0).random((4, 3), np.float32)
    np.testing.assert_array_equal(client.infer("arithmetic", left=array, right=array)["sum"], array + array)


def test_a_language_model_streams_through_encryption(safe: str, papers: Papers, connect: Connect) -> None:
    client = connect(safe, tls=TLS(papers.ca, *papers.client), timeout=5)
    parts = client.stream("llama", script("one two", pause=0.4), idle_timeout=2.0)
    assert [delta.text for delta in parts] == ["one", " two"]
    with pytest.raises(DeadlineExceeded, match="idle_timeout") as caught:
        list(client.stream("llama", script("one two", pause=0.8), idle_timeout=0.3))
    assert caught.value.text == "one"


def test_a_name_in_the_certificate_may_differ_from_the_address(safe: str, papers: Papers, connect: Connect) -> None:
    named = TLS(papers.ca, *papers.client, server_name="models.internal")
    assert connect(safe, tls=named, timeout=5).ready()
    wrong = TLS(papers.ca, *papers.client, server_name="other.internal")
    with pytest.raises(ConnectionFailed, match="check tls="):
        connect(safe, tls=wrong, timeout=2, retry=None).ready()


def test_a_server_that_a_stranger_vouches_for_is_not_trusted(safe: str, papers: Papers, connect: Connect) -> None:
    for tls in (TLS(papers.stranger, *papers.client), None):
        with pytest.raises(ConnectionFailed, match="check tls="):
            connect(safe, tls=tls, timeout=2, retry=None).ready()


def test_a_client_without_a_certificate_is_turned_away(safe: str, papers: Papers, connect: Connect) -> None:
    with pytest.raises(ConnectionFailed):
        connect(safe, tls=TLS(papers.ca), timeout=2, retry=None).ready()


def test_a_deadline_holds_during_a_handshake_that_never_ends(papers: Papers, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for scheme in ("grpcs", "https"):
            client = connect(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", tls=TLS(papers.ca), timeout=0.3)
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                client.ready()
            assert 0.3 <= time.monotonic() - started < 2


def test_a_restricted_operation_wants_its_header(
    safe: str, papers: Papers, guarded: TritonServer, connect: Connect
) -> None:
    tls = TLS(papers.ca, *papers.client)
    with pytest.raises(Unauthenticated, match="headers="):
        connect(safe, tls=tls).repository()
    with pytest.raises(ModelNotFound, match="check the name and the version"):  # the index is restricted
        connect(safe, tls=tls).metadata("arithmetc")
    header = "triton-grpc-protocol-admin-key" if safe.startswith("grpcs") else "admin-key"
    client = connect(safe, tls=tls, headers={header: "open"})
    assert {entry.name for entry in client.repository()} == {"arithmetic", "inspect", "llama"}


def seen(client: Client, **how: Any) -> dict[str, str]:
    """The headers that a request arrived with."""
    parameters = json.loads(client.infer("inspect", **how)["seen"][0])["parameters"]
    return {name.lower().removeprefix("triton_http_"): value for name, value in parameters.items()}


def test_tokens_and_headers_arrive_and_are_made_anew_for_each_request(url: str, connect: Connect) -> None:
    calls: list[int] = []

    def token() -> str:
        calls.append(1)
        return f"token-{len(calls)}"

    client = connect(url, token=token, headers={"x-team": "vision"})
    first = seen(client)
    assert first["x-team"] == "vision"
    assert first["authorization"].startswith("Bearer token-")
    assert seen(client)["authorization"] != first["authorization"]
    assert seen(client, headers={"x-once": "1"})["x-once"] == "1"
    assert "x-once" not in seen(client)
    assert seen(connect(url, headers=lambda: {"x-made": "now"}))["x-made"] == "now"
    assert seen(connect(url, token="fixed"))["authorization"] == "Bearer fixed"


def test_no_secret_is_ever_shown(url: str, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Any] = []
    hooks = {"request": [events.append], "response": [events.append]}
    with caplog.at_level(logging.DEBUG):
        client = connect(url, token=SECRET, headers={"x-key": SECRET}, event_hooks=hooks)
        assert SECRET in seen(client).values()
        with pytest.raises(ModelNotFound) as caught:
            client.infer("absent", x=[1.0], headers={"x-once": SECRET})
    shown = [repr(client), str(caught.value), repr(caught.value), repr(events), caplog.text, repr(client._credentials)]
    assert not any(SECRET in text for text in shown)
    for event in events:
        if event.__class__.__name__ == "RequestEvent" and "x-once" not in event.headers:
            assert SECRET not in str(event.headers)


def test_what_cannot_be_sent_as_a_header_is_refused_without_repeating_it(url: str, connect: Connect) -> None:
    for options in ({"token": f"{SECRET}\r\nx: y"}, {"headers": {"x": f"ä{SECRET}"}}, {"headers": lambda: SECRET}):
        with pytest.raises(InvalidInput) as caught:
            connect(url, **options).live()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [{"x": f"{SECRET}\nx: y"}, {"x": "ä"}, {"x y": SECRET}, {"": SECRET}, {"x": 1}, {"x": None}, {"x-bin": SECRET},
     {"Content-Length": "3"}, {"transfer-encoding": "chunked"}, [SECRET]],
)  # fmt: skip
def test_headers_of_a_call_are_checked_too(url: str, connect: Connect, headers: Any) -> None:
    client = connect(url, timeout=5)
    calls: list[Callable[[], object]] = [lambda: client.infer("inspect", headers=headers)]
    if url.startswith("grpc"):
        calls.append(lambda: list(client.stream("inspect", headers=headers)))
    for call in calls:
        with pytest.raises(InvalidInput, match="header") as caught:
            call()
        assert SECRET not in str(caught.value)


def test_a_header_of_a_call_replaces_the_clients(url: str, connect: Connect) -> None:
    client = connect(url, token="everyday", headers={"X-Team": "vision"})
    arrived = seen(client, headers={"Authorization": "Bearer special", "x-team": "speech"})
    assert {arrived["authorization"], arrived["x-team"]} == {"Bearer special", "speech"}
    assert "everyday" not in str(arrived)


def test_files_that_do_not_fit_are_refused_at_once(papers: Papers) -> None:
    with pytest.raises(InvalidInput, match="a certificate needs its key"):
        TLS(papers.ca, papers.client[0])
    with pytest.raises(InvalidInput, match="not a file"):
        TLS("/nowhere/ca.pem")
    with pytest.raises(InvalidInput, match="not encrypted"):
        Client("grpc://models", tls=TLS(papers.ca))
