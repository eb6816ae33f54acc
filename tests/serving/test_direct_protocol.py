"""The protocol on a socket: what is answered at once, what is handed over, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from uvicorn.server import ServerState

from include.serving import http_limits, turn
from include.serving.direct import MAX_PLAIN_BODY
from include.serving.direct_protocol import MAX_BURST, DirectProtocol
from include.serving.http_limits import MAX_HEAD, end_slow_requests
from include.serving.peers import PeerProtocol
from tests.builders.application import Client
from tests.builders.serving import NAME, ROW, Desk

pytestmark = pytest.mark.anyio
PLAIN = json.dumps({"features": ROW}).encode()


@dataclass
class Site:
    """An application behind the node's protocol, which counts what reaches it."""

    client: Client
    port: int = 0
    reached: list[str] = field(default_factory=list)
    state: ServerState = field(default_factory=ServerState)
    app: Any = None  # in place of the client's

    @property
    def direct(self) -> Any:
        """What the protocol asks first."""
        return self.client.app.direct

    @property
    def turn(self) -> Any:
        """What it hands answers to."""
        return self.client.app.turn

    @property
    def metrics(self) -> Any:
        """What counts the answers by hand."""
        return self.client.app.metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Be the application."""
        self.reached.append(scope["path"])
        await (self.app or self.client.app)(scope, receive, send)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a new connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *pieces: bytes, answers: int = 1) -> list[tuple[int, Any]]:
        """Send pieces, each by itself, and return the answers."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        found = [await answer(reader) for _ in range(answers)]
        writer.close()
        return found


async def answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Read one answer: its status and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    body = await reader.readexactly(length)
    return int(head.split()[1]), json.loads(body) if body[:1] == b"{" else body


@asynccontextmanager
async def serve(site: Site, **options: Any) -> AsyncIterator[Site]:
    config = uvicorn.Config(
        site, http=DirectProtocol, ws="none", lifespan="off", log_config=None, **options
    )
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: DirectProtocol(config, site.state, {}, loop), "127.0.0.1", 0
    )
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for connection in list(site.state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("protocol"))


@pytest.fixture
async def site(desk: Desk) -> AsyncIterator[Site]:
    client = Client(desk)
    client.app._hosts = frozenset({"localhost"})
    client.serve(1)
    async with serve(Site(client)) as running:
        yield running


def post(
    body: bytes = PLAIN, *more: str, path: str = f"/v1/{NAME}/predict", version: str = "1.1"
) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", "Content-Type: application/json"]
    if not any("chunked" in line for line in more):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *more, "", ""]).encode() + body


GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def test_a_plain_prediction_never_reaches_the_application(site: Site) -> None:
    ((status, body),) = await site.ask(post())
    assert (status, body["model_version"], site.reached) == (200, 1, [])


async def writes_of(site: Site, request: bytes, ends: bytes) -> list[bytes]:
    """Return what the node wrote to answer a request, write by write."""
    reader, writer = await site.connect()
    while not site.state.connections:
        await asyncio.sleep(0.001)
    (connection,) = site.state.connections
    transport, written = connection.transport, list[bytes]()
    write = transport.write

    def seen(data: bytes) -> None:
        written.append(bytes(data))
        write(data)

    transport.write = seen
    writer.write(request)
    await asyncio.wait_for(reader.readuntil(ends), 60)
    writer.close()
    return written


@pytest.mark.parametrize("request_", [GET, post(b"{}"), post()], ids=["get", "refused", "plain"])
async def test_an_answer_is_one_write_so_that_a_killed_node_sends_all_of_it_or_nothing(
    site: Site, request_: bytes
) -> None:
    """A balancer asks another node again where nothing came, and never where a head did."""
    (whole,) = await writes_of(site, request_, b"}")
    head, _, body = whole.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
    assert json.loads(body)


async def test_an_answer_without_a_body_is_sent_too(site: Site) -> None:
    (head,) = await writes_of(site, GET.replace(b"GET", b"HEAD"), b"\r\n\r\n")
    assert head.endswith(b"\r\n\r\n")


async def test_a_client_that_waits_to_send_its_body_is_told_to_go_on(site: Site) -> None:
    asked = post(PLAIN, "Expect: 100-continue")
    at = asked.index(b"\r\n\r\n") + 4
    reader, writer = await site.connect()
    writer.write(asked[:at])
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 100 ")
    writer.write(asked[at:])
    status, body = await answer(reader)
    assert (status, body["model_version"]) == (200, 1)
    writer.close()


async def test_an_answer_that_breaks_off_has_its_head_and_ends(site: Site) -> None:
    async def breaks_off(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise ZeroDivisionError

    site.app = breaks_off
    reader, writer = await site.connect()
    writer.write(GET)
    sent = await asyncio.wait_for(reader.read(), 60)
    assert sent.startswith(b"HTTP/1.1 200 ")
    assert sent.endswith(b"\r\n\r\n")
    writer.close()


async def test_it_may_come_in_any_pieces(site: Site) -> None:
    whole = post()
    at = len(whole) - len(PLAIN)
    for cut in (1, 20, at - 2, at, at + 1, len(whole) - 1):
        ((status, _),) = await site.ask(whole[:cut], whole[cut:])
        assert status == 200
    ((status, _),) = await site.ask(*(whole[i : i + 7] for i in range(0, len(whole), 7)))
    assert (status, site.reached) == (200, [])


async def test_answers_to_requests_sent_ahead_keep_their_order(site: Site) -> None:
    ids = [f"r-{number}" for number in range(6)]
    plain = [post(PLAIN, f"x-request-id: {name}") for name in ids]
    ahead = [plain[0], plain[1], GET, plain[2], post(b"{}"), plain[3], plain[4], GET, plain[5]]
    answers = await site.ask(b"".join(ahead), answers=len(ahead))
    assert [status for status, _ in answers] == [200, 200, 200, 200, 422, 200, 200, 200, 200]
    named = [body["request_id"] for _, body in answers if "score" in body]
    assert named == ids
    assert site.reached[0] == "/health"


async def test_a_client_that_sends_many_ahead_waits_for_its_turns(site: Site) -> None:
    ids = [f"r-{number}" for number in range(3 * MAX_BURST)]
    sent = b"".join(post(PLAIN, f"x-request-id: {name}") for name in ids)
    answers = await site.ask(sent, answers=len(ids))
    assert [body["request_id"] for _, body in answers] == ids
    assert len(site.reached) >= len(ids) // 2


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(PLAIN, "connection: close"), 200),
        (post(PLAIN, version="1.0"), 200),
        (post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(PLAIN), PLAIN), "transfer-encoding: chunked"), 200),
        (post(PLAIN, "x-a: 1", "x-a: 2"), 200),
        (post(PLAIN, "content-type: text/plain"), 200),  # of two the first counts, as before
        (post(b'{"features": {}}'), 422),
        (post(b"{"), 400),
        (post(b""), 400),
        (post(PLAIN, path="/v1/nobody/predict"), 404),
        (post(PLAIN, path=f"/v1/{NAME}/predict?x=1"), 200),
        (post(b" " * MAX_PLAIN_BODY + PLAIN), 200),
        (post(PLAIN).replace(b"localhost", b"evil.example"), 421),
        (post(PLAIN).replace(b"POST", b"PUT"), 405),
        (post(PLAIN).replace(b"application/json", b"text/plain"), 415),
    ],
)
async def test_everything_else_is_handed_over(site: Site, request_: bytes, status: int) -> None:
    assert (await site.ask(request_))[0][0] == status
    assert len(site.reached) == 1


@pytest.mark.parametrize(
    "more",
    [
        ("Content-Length: 7",),
        ("Transfer-Encoding: chunked", f"Content-Length: {len(PLAIN)}"),
        ("Transfer-Encoding: chunked, identity",),
        (" folded: x",),
    ],
)
async def test_what_could_be_cut_in_two_ways_is_no_request(
    site: Site, more: tuple[str, ...]
) -> None:
    reader, writer = await site.connect()
    writer.write(post(PLAIN, *more))
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_who_waits_for_a_word_to_go_on_gets_it(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(post(PLAIN, "Expect: 100-continue")[: -len(PLAIN)])
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(PLAIN)
    assert (await answer(reader))[0] == 200
    writer.close()


async def test_a_client_that_leaves_in_its_body_is_counted(site: Site) -> None:
    _, writer = await site.connect()
    writer.write(post()[:-5])
    await writer.drain()
    writer.close()
    text = f'answers_total{{route="predict",status="499",use_case="{NAME}"}} 1.0'
    async with asyncio.timeout(60):
        while text not in site.client.app.metrics.render("")[0].decode():
            await asyncio.sleep(0.01)


async def test_a_client_that_never_ends_its_body_is_told_so(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(post()[:-5])
    async with asyncio.timeout(60):
        while not any(one.began and not one.in_head for one in site.state.connections):
            await asyncio.sleep(0.01)
    now = asyncio.get_running_loop().time()
    assert end_slow_requests(site.state.connections, now) == 0
    assert end_slow_requests(site.state.connections, now + http_limits.BODY_SECONDS + 1) == 1
    assert (await answer(reader))[0] == 408
    assert await reader.read() == b""
    writer.close()


async def test_an_idle_connection_is_closed_without_a_word(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(post())
    assert (await answer(reader))[0] == 200
    (connection,) = site.state.connections
    now = asyncio.get_running_loop().time()
    end_slow_requests(site.state.connections, now + connection.timeout_keep_alive - 1)
    writer.write(post())
    assert (await answer(reader))[0] == 200
    assert end_slow_requests(site.state.connections, now + connection.timeout_keep_alive + 9) == 0
    assert await reader.read() == b""
    writer.close()


async def test_a_server_that_ends_lets_a_request_in_hand_end(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(post()[:-5])
    async with asyncio.timeout(60):
        while not any(one.began and not one.in_head for one in site.state.connections):
            await asyncio.sleep(0.01)
    for connection in list(site.state.connections):
        connection.shutdown()
    writer.write(post()[-5:])
    assert (await answer(reader))[0] == 200
    assert await reader.read() == b""
    writer.close()


async def test_large_headers_are_refused_wherever_they_begin(site: Site) -> None:
    large = post(PLAIN, "x: " + "y" * MAX_HEAD)
    assert (await site.ask(large))[0][0] == 431
    assert [one[0] for one in await site.ask(post() + large, answers=2)] == [200, 431]
    reader, writer = await site.connect()
    writer.write(post() + large[:9000])
    assert (await answer(reader))[0] == 200
    writer.write(large[9000:])
    assert (await answer(reader))[0] == 431
    writer.close()
    fits = post(PLAIN, "x: " + "y" * (MAX_HEAD - 300))
    assert [one[0] for one in await site.ask(fits + fits, answers=2)] == [200, 200]


async def test_up_to_the_cap_of_connections_all_are_answered_and_no_more_are_let_in(
    desk: Desk,
) -> None:
    client = Client(desk)
    client.app._hosts = None
    client.serve(1)
    async with serve(Site(client), limit_concurrency=3) as site, asyncio.timeout(60):
        PeerProtocol.take_refused()
        first, second = await site.connect(), await site.connect()
        while len(site.state.connections) < 2:
            await asyncio.sleep(0.001)
        reader, writer = await site.connect()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert PeerProtocol.take_refused() == 1
        for asked in (post(), b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n"):
            for reader, writer in (first, second):
                writer.write(asked)
                assert (await answer(reader))[0] == 200
        first[1].close()
        while len(site.state.connections) == 2:
            await asyncio.sleep(0.001)
        assert (await site.ask(post()))[0][0] == 200
        second[1].close()


async def test_a_reader_that_does_not_read_fills_no_memory(site: Site) -> None:
    _, writer = await site.connect()
    async with asyncio.timeout(60):
        while not site.state.connections:
            await asyncio.sleep(0.001)
        (connection,) = site.state.connections
        # The kernels of both ends would take all of the answers else.
        for end, room in ((writer, socket.SO_RCVBUF), (connection, socket.SO_SNDBUF)):
            end.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, room, 4096)
        writer.write(post() * 5000)
        while not connection.transport.get_write_buffer_size():
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.5)
    assert not connection.transport.is_closing()
    assert connection.transport.get_write_buffer_size() < 1 << 20
    writer.transport.abort()


def on_record(site: Site) -> bytes:
    folder: Path = site.client.desk.settings.home / "predictions" / NAME
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_an_answer_is_on_record_when_it_is_read(site: Site) -> None:
    ((_, body),) = await site.ask(post())
    assert body["request_id"].encode() in on_record(site)


async def ask_again(
    pair: tuple[asyncio.StreamReader, asyncio.StreamWriter], *pieces: bytes
) -> tuple[int, Any]:
    """Send pieces over an open connection and return the answer."""
    reader, writer = pair
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    return await answer(reader)


async def test_headers_that_come_again_are_not_parsed_again(site: Site) -> None:
    pair, fed = await site.connect(), list[bytes]()
    for _ in range(2):
        assert (await ask_again(pair, post()))[0] == 200
    assert [head.use_case for head in site.direct.heads.values()] == [NAME]
    (connection,) = site.state.connections

    class Parser:
        def feed_data(self, data: bytes) -> None:
            fed.append(data)

    parser, connection.parser = connection.parser, Parser()
    other = json.dumps({"features": {**ROW, "income": 9876.5}}).encode()
    assert len(other) == len(PLAIN)
    answers = [await ask_again(pair, post(body)) for body in (PLAIN, other)]
    assert [status for status, _ in answers] == [200, 200]
    assert fed == []
    connection.parser = parser
    for more in (GET, post(b"{}"), post(PLAIN, "x-request-id: a"), post(b"{" * len(PLAIN))):
        assert (await ask_again(pair, more))[0] in (200, 400, 422)
    assert (await ask_again(pair, post()[:-9], post()[-9:]))[0] == 200
    assert (await ask_again(pair, post()))[0] == 200
    pair[1].write(post() + post())
    assert [(await answer(pair[0]))[0] for _ in range(2)] == [200, 200]
    pair[1].close()


async def test_a_part_of_headers_is_never_taken_for_whole_ones(site: Site) -> None:
    pair, whole = await site.connect(), post()
    for _ in range(2):
        assert (await ask_again(pair, whole))[0] == 200
    kept = dict(site.direct.heads)
    for cut in range(1, len(whole) - len(PLAIN), 7):
        assert (await ask_again(pair, whole[:cut], whole[cut:]))[0] == 200
    assert site.direct.heads == kept
    pair[1].write(whole[40:])
    assert (await pair[0].readline()).startswith(b"HTTP/1.1 400")
    pair[1].close()


async def test_what_is_kept_of_headers_decides_nothing_but_their_meaning(site: Site) -> None:
    pair = await site.connect()
    for _ in range(3):
        assert (await ask_again(pair, post()))[0] == 200
    site.client.app.forget(NAME)
    assert (await ask_again(pair, post()))[0] == 404
    pair[1].close()
    site.client.serve(1)
    pair = await site.connect()
    assert (await ask_again(pair, post()))[0] == 200
    site.client.app.table.draining = True
    pair[1].write(post())
    assert b"connection: close" in await pair[0].readuntil(b"\r\n\r\n")
    pair[1].close()


async def test_headers_are_kept_up_to_a_bound(site: Site) -> None:
    pair = await site.connect()
    for number in range(1200):
        pair[1].write(post(PLAIN, f"x-a: {number}"))
        assert (await answer(pair[0]))[0] == 200
    assert 0 < len(site.direct.heads) <= 512
    before = len(site.direct.heads)
    for more in ("x-request-id: a", "x-a: " + "y" * 3000):
        for _ in range(3):
            assert (await ask_again(pair, post(PLAIN, more)))[0] == 200
    assert len(site.direct.heads) == before
    pair[1].close()


class Pair(NamedTuple):
    """A client and the server's end of its connection, which has answered once."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    served: Any


async def open_pair(site: Site) -> Pair:
    """Connect and ask twice: the second time by headers that were parsed before."""
    before = set(site.state.connections)
    reader, writer = await site.connect()
    for _ in range(2):
        assert (await ask_again((reader, writer), post()))[0] == 200
    (served,) = site.state.connections - before
    return Pair(reader, writer, served)


@pytest.fixture
def never_lonely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each answer wait for its turn to end."""
    monkeypatch.setattr(turn, "LONELY", 0)


@pytest.mark.usefixtures("never_lonely")
async def test_answers_of_one_turn_are_on_record_by_one_write(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [await open_pair(site) for _ in range(5)]
    log, written = site.client.app.log._books[NAME].writer.log, list[int]()
    append = log.append
    monkeypatch.setattr(log, "append", lambda line, n=1: (written.append(n), append(line, n)))
    for pair in pairs:
        pair.served.data_received(post())
        assert pair.served.transport.get_write_buffer_size() == 0
    assert written == []
    found = [await answer(pair.reader) for pair in pairs]
    assert [status for status, _ in found] == [200] * 5
    assert written == [5]
    assert all(body["request_id"].encode() in on_record(site) for _, body in found)
    assert site.reached == []
    # No answer waits for more than so many others.
    monkeypatch.setattr(turn, "MAX_TOGETHER", 2)
    for pair in pairs:
        pair.served.data_received(post())
    assert written == [5, 2, 2]
    assert [(await answer(pair.reader))[0] for pair in pairs] == [200] * 5
    for pair in pairs:
        pair.writer.close()


@pytest.mark.usefixtures("never_lonely")
async def test_what_comes_behind_an_answer_that_waits_does_not_overtake_it(site: Site) -> None:
    pair = await open_pair(site)
    pair.served.data_received(post())
    pair.served.data_received(GET)
    pair.served.data_received(post(PLAIN, "x-request-id: last"))
    bodies = [(await answer(pair.reader))[1] for _ in range(3)]
    assert ["score" in body for body in bodies] == [True, False, True]
    pair.served.data_received(post())
    pair.served.shutdown()
    assert (await answer(pair.reader))[0] == 200
    assert await pair.reader.read() == b""
    pair.writer.close()


@pytest.mark.usefixtures("never_lonely")
async def test_who_sends_no_more_and_who_is_gone_were_answered(site: Site) -> None:
    pair = await open_pair(site)
    pair.served.data_received(post())
    pair.served.eof_received()
    pair.served.transport.close()
    assert (await answer(pair.reader))[0] == 200
    gone = await open_pair(site)
    lines = on_record(site).count(b"\n")
    gone.served.data_received(post())
    gone.writer.transport.abort()
    gone.served.transport.abort()
    async with asyncio.timeout(60):
        while site.state.connections:
            await asyncio.sleep(0.001)
    assert on_record(site).count(b"\n") == lines + 1
    gone.writer.close()
    pair.writer.close()


@pytest.mark.usefixtures("never_lonely")
async def test_a_use_case_that_goes_is_answered_for_first(site: Site) -> None:
    pair = await open_pair(site)
    pair.served.data_received(post())
    site.client.app.forget(NAME)
    assert NAME not in site.client.app.log._books, "its log would be opened again"
    assert (await answer(pair.reader))[0] == 200
    pair.writer.close()


@pytest.mark.usefixtures("never_lonely")
async def test_what_cannot_be_put_on_record_is_explained_by_the_application(
    site: Site, tmp_path: Path
) -> None:
    pairs = [await open_pair(site) for _ in range(3)]
    site.client.app.log.close()
    log = site.client.app.log._books[NAME].writer.log
    folder, log._folder = log._folder, tmp_path / "file"
    log._folder.write_text("no folder")
    for pair in pairs:
        pair.served.data_received(post())
    answers = [await answer(pair.reader) for pair in pairs]
    assert [(status, body["error"]["code"]) for status, body in answers] == [
        (503, "unavailable")
    ] * 3
    assert b'_total{route="predict",status="200"' in site.client.app.metrics.render("")[0]
    log._folder = folder
    for pair in pairs:
        assert (await ask_again(pair[:2], post()))[0] == 200
        pair.writer.close()


@pytest.mark.usefixtures("never_lonely")
async def test_one_answer_that_cannot_be_sent_keeps_no_other_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await open_pair(site), await open_pair(site)

    def broken(_: bytes) -> None:
        raise RuntimeError("cannot be sent")

    monkeypatch.setattr(bad.served, "_send", broken)
    for pair in (bad, good):
        pair.served.data_received(post())
    assert (await answer(good.reader))[0] == 200
    assert await bad.reader.read() == b""
    text = f'evergreen_events_total{{event="direct_failed",use_case="{NAME}"}} 1.0'
    assert text in site.client.app.metrics.render("")[0].decode()
    for pair in (bad, good):
        pair.writer.close()


@pytest.mark.usefixtures("never_lonely")
async def test_what_fails_behind_the_lines_ends_the_connections_and_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, last = [await open_pair(site) for _ in range(2)], await open_pair(site)

    def broken(*_: object) -> None:
        raise RuntimeError("cannot be counted")

    with monkeypatch.context() as failing:
        failing.setattr(site.direct, "_observe", broken)
        for pair in pairs:
            pair.served.data_received(post())
        assert [await pair.reader.read() for pair in pairs] == [b"", b""]
    assert (await ask_again(last[:2], post()))[0] == 200
    for pair in (*pairs, last):
        pair.writer.close()


async def test_where_turns_have_one_answer_it_is_sent_at_once(site: Site) -> None:
    pair = await open_pair(site)
    while site.turn._lonely:
        await ask_again(pair[:2], post())
    await ask_again(pair[:2], post())  # a turn that had it alone
    for at_once in (*[True] * turn.LONELY, False):
        lines = on_record(site).count(b"\n")
        pair.served.data_received(post())
        assert on_record(site).count(b"\n") == lines + at_once
        assert (await answer(pair.reader))[0] == 200
    pair.writer.close()
