from __future__ import annotations

from typing import Any

import pytest

from tritonkit_client import Client, InvalidEndpoint
from tritonkit_client._transport.endpoint import Endpoint, Endpoints, parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("grpc://models:9001", Endpoint("grpc", "models", 9001)),
        ("grpc://models", Endpoint("grpc", "models", 8001)),
        ("http://models", Endpoint("http", "models", 8000)),
        ("http://models:80/", Endpoint("http", "models", 80)),
        ("http://models/team/a/", Endpoint("http", "models", 8000, "/team/a")),
        ("grpc://[::1]:8001", Endpoint("grpc", "::1", 8001)),
        ("grpcs://models", Endpoint("grpc", "models", 8001, tls=True)),
        ("https://models/team", Endpoint("http", "models", 443, "/team", tls=True)),
    ],
)
def test_an_address_is_read(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == Endpoints((endpoint,))


@pytest.mark.parametrize(
    ("text", "hosts", "resolve"),
    [
        ("grpc://a:1,b:2", ["a:1", "b:2"], False),
        ("grpc://a,b", ["a:8001", "b:8001"], False),
        ("http://a:1,[::1]:2/team", ["a:1", "[::1]:2"], False),
        ("dns:///models:9001", ["models:9001"], True),
        ("dns:///models", ["models:8001"], True),
        ("dns+https://models/team", ["models:443"], True),
    ],
)
def test_one_address_may_stand_for_several_servers(text: str, hosts: list[str], resolve: bool) -> None:
    endpoints = parse_endpoint(text)
    assert [endpoint.authority for endpoint in endpoints.all] == hosts
    assert endpoints.resolve == resolve
    assert endpoints.many
    assert {endpoint.path for endpoint in endpoints.all} == {"/team" if "team" in text else ""}


@pytest.mark.parametrize(
    "text",
    [
        "grpc://[::1]:8001",
        "http://models:8000/team",
        "grpc://127.0.0.1:1",
        "https://a:1,b:2/team",
        "dns+grpcs://a:1",
    ],
)
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with grpc://, grpcs://, http://"),
        ("127.0.0.1:8001", "does not begin with grpc://, grpcs://, http://"),
        ("ftp://models", "does not begin with grpc://, grpcs://, http://"),
        ("dns:models", "does not begin with"),
        ("grpc://a:1,a:1", "names a server twice"),
        ("dns:///a,b", "several names"),
        ("grpc://a,,b", "no usable host or port"),
        ("grpc://models/path", "a path, which gRPC does not know"),
        ("grpc://", "no usable host or port"),
        ("http://:8000", "no usable host or port"),
        ("http://models:0", "no usable host or port"),
        ("http://models:70000", "not an address"),
        ("http://models:port", "not an address"),
        ("http://[::1", "not an address"),
        ("http://models?a=b", "query"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_a_way_out(text: str, words: str) -> None:
    with pytest.raises(InvalidEndpoint, match=words) as caught:
        Client(text)
    assert caught.value.fix


@pytest.mark.parametrize(
    "text",
    [
        "user:s3cret@models:8001",
        "grpc:/user:s3cret@models",
        "http://user:s3cret@models",
        "grpc://models?token=s3cret",
        "http://user:s3cret@models:port",
        "https://s3cret@a",
    ],
)
def test_a_secret_in_an_address_is_never_repeated(text: str) -> None:
    with pytest.raises(InvalidEndpoint) as caught:
        Client(text)
    assert "s3cret" not in str(caught.value) + repr(caught.value)


def test_blanks_around_an_address_are_not_part_of_it() -> None:
    assert [endpoint.host for endpoint in parse_endpoint(" grpc://a:1, b:2\n").all] == ["a", "b"]


@pytest.mark.parametrize("endpoint", [None, b"grpc://a", ["grpc://a", "grpc://b"]])
def test_an_address_is_a_string(endpoint: Any) -> None:
    with pytest.raises(InvalidEndpoint, match=type(endpoint).__name__):
        Client(endpoint)


def test_the_client_shows_its_address_and_timeout() -> None:
    with Client("grpc://models", timeout=0.5) as client:
        assert repr(client) == "Client('grpc://models:8001', timeout=0.5)"
