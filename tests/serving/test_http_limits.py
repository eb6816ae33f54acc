"""Clients that send too slowly or too much are sent away by a real node; the others go on."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from include.serving.http_limits import MAX_HEAD, end_slow_requests
from tests.builders.serving import Desk, Node, until

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
    with serving(Desk(tmp_path_factory.mktemp("patient"))) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with those short limits that serves a model."""
    with serving(Desk(tmp_path_factory.mktemp("hasty")), setup=LIMITS) as running:
        yield running


@contextlib.contextmanager
def serving(desk: Desk, **options: str) -> Iterator[Node]:
    """Run a node that serves a model."""
    desk.train(1)
    desk.record_route(champion=1)
    with desk.node(**options) as running:
        running.serves(1)
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


POST = b"POST /v1/loans/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
LIVE = b"GET /live HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("which", "sent", "statuses"),
    [
        ("hasty", b"", {("", "", 408): 1}),
        (
            "hasty",
            b"POST /v1/x/predict HTTP/1.1\r\nhost: localhost\r\ncontent-le",
            {("", "", 408): 1},
        ),
        ("hasty", POST + b"content-length: 9\r\n\r\n{", {("loans", "predict", 408): 1}),
        ("patient", b"GARBAGE\r\n\r\n", {("", "", 400): 1}),
        ("patient", CHUNKED + b"ZZ\r\n", {("loans", "predict", 400): 1}),
        (
            "patient",
            LIVE + b"\r\n" + CHUNKED + b"ZZ\r\n",
            {("", "live", 200): 1, ("", "", 400): 1},
        ),
        ("hasty", LIVE + b"content-length: 5\r\n\r\n", {("", "live", 200): 1}),
        ("patient", GET + b"x-long: " + b"h" * MAX_HEAD + b"\r\n\r\n", {("", "", 431): 1}),
        ("hasty", POST + b"content-length: 90000000\r\n\r\n", {("loans", "predict", 413): 1}),
    ],
    ids=[
        "nothing",
        "half of the headers",
        "half of the body",
        "nonsense",
        "nonsense in the body",
        "nonsense in the body of a request that waits",
        "no body after the answer",
        "endless headers",
        "a body that is too large",
    ],
)
def test_a_request_that_is_refused_by_hand_is_counted_once(
    request: pytest.FixtureRequest,
    which: str,
    sent: bytes,
    statuses: dict[tuple[str, str, int], int],
) -> None:
    """Only of what does not come whole a node waits for as long as its limits say."""
    node: Node = request.getfixturevalue(which)
    before = answers(node)
    with connect(node, sent) as client:
        given = answer(client)
    told = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", given)]
    assert sorted(told) == sorted(status for _, _, status in statuses)
    until(lambda: answers(node) - before == statuses, what="the count of the answers")


def answers(node: Node) -> Counter[tuple[str, str, int]]:
    """Return how many answers a node has counted, but for those about that."""
    sample = r'^evergreen_answers_total\{route="(.*)",status="(\d+)",use_case="(.*)"\} (\S+)$'
    found = re.findall(sample, node.get("/metrics").body, re.MULTILINE)
    return Counter(
        {(name, route, int(status)): int(float(count)) for route, status, name, count in found}
        | {("", "metrics", 200): 0}
    )


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
