"""Clients that send too slowly or too much are sent away by a real node; the others go on."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from include.serving.http_limits import MAX_HEAD, end_slow_requests
from tests.builders.serving import Desk, Node

# So short that a test may wait for it.
LIMITS = (
    "import include.serving.http_limits as limits\nlimits.HEAD_SECONDS = limits.BODY_SECONDS = 1.0"
)
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Desk(tmp_path_factory.mktemp("limits")).node(setup=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with the time-outs of the product, for clients that a busy machine may hold up."""
    with Desk(tmp_path_factory.mktemp("patient")).node() as running:
        yield running


def connect(node: Node, *pieces: bytes) -> socket.socket:
    """Return a connection over which these pieces were sent."""
    client = socket.create_connection(("127.0.0.1", node.settings.node_port), timeout=60)
    for piece in pieces:
        client.sendall(piece)
    return client


def answer(client: socket.socket) -> bytes:
    """Return all that a connection gives until it is closed."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"POST /v1/x/predict HTTP/1.1\r\nhost: localhost\r\ncontent-le",),
        (
            b"POST /v1/loans/predict HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: 9\r\n\r\n",
            b"{",
        ),
    ],
    ids=["silent", "in its headers", "in its body"],
)
def test_a_client_that_never_finishes_is_sent_away(node: Node, pieces: tuple[bytes, ...]) -> None:
    with connect(node, *pieces) as client:
        head, _, body = answer(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "refused"
    assert 'event="slow_client"' in node.get("/metrics").body


def test_a_client_that_is_idle_between_requests_is_not(node: Node) -> None:
    client = HTTPConnection("127.0.0.1", node.settings.node_port, timeout=60)
    with contextlib.closing(client):
        for pause in (2.2, 0):  # the first is longer than the limit and a look at it
            client.request("GET", "/health")
            response = client.getresponse()
            assert (response.status, json.loads(response.read())["status"]) == (200, "ok")
            time.sleep(pause)


def test_headers_up_to_the_limit_are_read(patient: Node) -> None:
    with connect(patient, GET + b"x: " + b"y" * (MAX_HEAD - 100) + b"\r\n\r\n") as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_larger_headers_are_refused(patient: Node) -> None:
    with connect(patient, GET + b"x: " + b"y" * MAX_HEAD + b"\r\n\r\n") as client:
        assert client.recv(100).startswith(b"HTTP/1.1 431")


def test_endless_headers_end_the_connection(patient: Node) -> None:
    with connect(patient) as client, pytest.raises(OSError, match=r"reset|Broken pipe"):
        client.sendall(GET + b"x: " + b"y" * (64 << 20))
    assert patient.get("/health").status == 200


def test_connections_of_another_protocol_are_left_alone() -> None:
    assert end_slow_requests([object()], now=1e9) == 0
