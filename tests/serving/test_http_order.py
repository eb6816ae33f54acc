"""Where requests end and in which order answers leave, on a socket and on the node's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from include.serving.http_limits import MAX_HEAD
from tests.builders.application import Client
from tests.builders.serving import NAME, Desk
from tests.serving.test_direct_protocol import GET, PLAIN, Site, answer, post, serve

pytestmark = pytest.mark.anyio
LONG = "x-evergreen-explain: 0"  # a plain request that goes the long way
CHUNKED = "transfer-encoding: chunked"
OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop of the node: it treats closed connections otherwise than asyncio's does."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("order"))


HEAD = GET.replace(b"GET", b"HEAD")


class Gate:
    """An application that sends its answers once it is opened, and keeps what it fails at."""

    def __init__(self, app: Any) -> None:
        self.app, self.opened, self.failures = app, asyncio.Event(), list[BaseException]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Be the application."""

        async def kept(message: Any) -> None:
            await self.opened.wait()
            try:
                await send(message)
            except BaseException as error:
                self.failures.append(error)
                raise

        await self.app(scope, receive, kept)


@pytest.fixture
async def site(desk: Desk) -> AsyncIterator[Site]:
    client = Client(desk)
    client.app._hosts = frozenset({"localhost"})
    client.serve(1)
    async with serve(Site(client, app=Gate(client.app))) as running:
        yield running


async def whole(reader: asyncio.StreamReader) -> list[int]:
    """Return the statuses of all answers until the connection is closed."""
    async with asyncio.timeout(60):
        sent = await reader.read()
    found = []
    while sent:
        head, _, rest = sent.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert len(rest) >= length, "an answer is cut off"
        found.append(int(head.split()[1]))
        sent = rest[length:]
    return found


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


TRAILERS = b"%x\r\n%b\r\n0\r\nx: " % (len(PLAIN), PLAIN) + b"y" * MAX_HEAD + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (b"\x00 nonsense\r\n\r\n", 400),
        (post(PLAIN, "Content-Length: 7"), 400),
        (post(b"zz\r\n", CHUNKED), 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (post(PLAIN, "x: " + "y" * MAX_HEAD), 431),
        (post(TRAILERS, CHUNKED), 431),
    ],
    ids=["nonsense", "two lengths", "no size of a chunk", "connect", "large head", "trailers"],
)
@pytest.mark.parametrize("before", [[GET], [GET, post(PLAIN, LONG)], [GET, post()], [post()], []])
async def test_what_was_asked_before_is_answered_before_a_refusal_and_nothing_behind_it(
    site: Site, before: list[bytes], wrong: bytes, status: int
) -> None:
    reader, writer = await site.connect()
    await until(lambda: site.state.connections)
    (connection,) = site.state.connections
    writer.write(b"".join(before) + wrong + GET + post(PLAIN, LONG))
    await until(lambda: connection.is_over)
    reached = len(site.reached)
    site.app.opened.set()
    assert await whole(reader) == [200] * len(before) + [status]
    assert len(site.reached) - reached <= max(0, len(before) - 1), "none from behind it"
    assert site.app.failures == []
    writer.close()


async def test_a_refusal_is_json_like_any_other(site: Site) -> None:
    site.app.opened.set()
    ((status, body),) = await site.ask(b"nonsense\r\n\r\n")
    assert (status, body["error"]["code"]) == (400, "refused")


@pytest.mark.parametrize("body", [PLAIN, GET + post()], ids=["row", "requests"])
@pytest.mark.parametrize("cut", ["at once", "head first", "bytes"])
async def test_the_body_behind_an_offer_of_another_protocol_is_that_requests(
    site: Site, body: bytes, cut: str
) -> None:
    """Clients of Java offer HTTP/2 with their first request, whatever its method."""
    asked = post(body, *OFFER)
    at = len(asked) - len(body)
    pieces = {
        "at once": [asked],
        "head first": [asked[:at], asked[at:]],
        "bytes": [asked[i : i + 1] for i in range(len(asked))],
    }[cut]
    site.app.opened.set()
    reader, writer = await site.connect()
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.001)
    writer.write(post(PLAIN, "x-request-id: next"))
    status, told = await answer(reader)
    if body is PLAIN:
        assert (status, told["model_version"]) == (200, 1)
    else:
        assert (status, told["error"]["code"]) == (400, "bad_json")
    assert (await answer(reader))[1]["request_id"] == "next"
    assert site.reached[0] == f"/v1/{NAME}/predict"
    assert "/health" not in site.reached
    writer.close()


async def test_offers_of_other_protocols_end_nothing(site: Site) -> None:
    site.app.opened.set()
    offering = GET.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    chunked = post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(PLAIN), PLAIN), CHUNKED, *OFFER)
    answers = await site.ask((offering + chunked) * 200, answers=400)
    assert [status for status, _ in answers] == [200] * 400


async def test_who_ends_its_own_half_of_the_connection_gets_its_answers(site: Site) -> None:
    for sent, statuses in [
        (GET, [200]),
        (GET + post() + post(b"{}"), [200, 200, 422]),
        (post(PLAIN, LONG), [200]),
        (post(), [200]),
        (GET + post()[:-5], [200]),
        (GET + b"POST /v1/", [200]),
        (post()[:-5], []),
        (b"", []),
    ]:
        site.app.opened.clear()
        reader, writer = await site.connect()
        writer.write(sent)
        writer.write_eof()
        if sent.startswith(GET) and len(statuses) == 1:  # of more, the end is read behind them
            await until(lambda: any(one.is_over for one in site.state.connections))
        site.app.opened.set()
        assert await whole(reader) == statuses
        writer.close()
        await until(lambda: not site.state.connections)
    assert site.app.failures == []


@pytest.mark.parametrize("first", [post(PLAIN, LONG), HEAD], ids=["post", "head"])
async def test_a_client_that_is_gone_is_no_fault_of_the_node(site: Site, first: bytes) -> None:
    _, writer = await site.connect()
    writer.write(first + GET)
    await until(lambda: site.reached)
    for connection in list(site.state.connections):
        connection.transport.abort()  # as a reset ends it; nothing is read of it just now
    writer.close()
    await until(lambda: not site.state.connections)
    site.app.opened.set()
    await until(lambda: not site.state.tasks)
    assert site.app.failures == []
    assert len(site.reached) == 1
