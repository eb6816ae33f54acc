"""The connection to Redis: many questions at once, each with its own reply; a real server."""

from __future__ import annotations

import asyncio
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.config.settings import Settings
from include.errors import Unavailable
from include.features.online_redis import RedisStore
from include.features.online_rows import pack
from include.serving.redis_link import RedisLink
from tests.builders.ports import free_port
from tests.builders.redis_server import Server, own_server
from tests.features.test_online_stores import SET


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with own_server(tmp_path_factory.mktemp("redis")) as own:
        yield own


async def echo(link: RedisLink, text: str, seconds: float | None = None) -> str:
    reply: bytes = await link.ask("ECHO", text, seconds=seconds)
    return reply.decode()


def test_each_of_many_questions_gets_its_own_reply(server: Server) -> None:
    async def run() -> list[str]:
        link = await RedisLink.open(server.url)
        found = await asyncio.gather(*(echo(link, f"n{at}" * 500) for at in range(1000)))
        link.close()
        return found

    assert asyncio.run(run()) == [f"n{at}" * 500 for at in range(1000)]


def test_a_late_reply_is_nobody_elses(server: Server) -> None:
    async def run() -> None:
        link = await RedisLink.open(server.url)
        assert link.silent_seconds == 0.0
        server.send(signal.SIGSTOP)
        try:
            late = [asyncio.create_task(echo(link, f"late{at}", 0.02)) for at in range(5)]
            given_up = asyncio.create_task(echo(link, "given up"))
            await asyncio.sleep(0)
            given_up.cancel()
            for each in late:
                with pytest.raises(TimeoutError):
                    await each
            assert link.silent_seconds > 0.01
        finally:
            server.send(signal.SIGCONT)
        assert await echo(link, "mine") == "mine"
        assert link.silent_seconds == 0.0
        link.close()

    asyncio.run(run())


def test_a_loop_that_was_busy_finds_the_reply_in_its_socket(server: Server) -> None:
    async def run() -> list[str]:
        link = await RedisLink.open(server.url)
        assert link._transport is not None
        asked = [asyncio.create_task(echo(link, f"n{at}", 0.5)) for at in range(3)]
        for _ in range(3):  # the question is sent
            await asyncio.sleep(0)
        # All replies come by one write, as the questions did.
        replied, _, _ = select.select([link._transport.get_extra_info("socket")], [], [], 60)
        assert replied
        time.sleep(0.6)  # longer than is waited for a reply
        found = await asyncio.gather(*asked)
        link.close()
        return found

    assert asyncio.run(run()) == ["n0", "n1", "n2"]


def test_an_error_of_the_server_is_of_one_question_alone(server: Server) -> None:
    async def run() -> None:
        link = await RedisLink.open(server.url + "?db=3")
        wrong = asyncio.create_task(link.ask("NO-SUCH-COMMAND", seconds=30.0))
        right = asyncio.create_task(echo(link, "right"))
        with pytest.raises(Unavailable, match="unknown command"):
            await wrong
        assert await right == "right"
        link.close()
        with pytest.raises(Unavailable):
            await echo(link, "closed")

    asyncio.run(run())


def test_an_end_of_the_connection_is_told_at_once(server: Server) -> None:
    async def run() -> None:
        ended = asyncio.Event()
        link = await RedisLink.open(server.url)
        link.on_end = ended.set
        number = await link.ask("CLIENT", "ID", seconds=None)
        server.send(signal.SIGSTOP)
        waiting = asyncio.create_task(echo(link, "x"))
        await asyncio.sleep(0.01)
        server.send(signal.SIGCONT)
        await waiting
        server.client.client_kill_filter(_id=number)
        await asyncio.wait_for(ended.wait(), 60)
        with pytest.raises(Unavailable, match="has ended"):
            await echo(link, "x")

    asyncio.run(run())


def test_what_is_no_redis_is_refused() -> None:
    async def run() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

        port = free_port()
        async with await asyncio.start_server(talk, "127.0.0.1", port):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(RedisLink.open(f"redis://127.0.0.1:{port}/0"), 60)
        with pytest.raises(OSError, match="onnect"):
            await RedisLink.open(f"redis://127.0.0.1:{port}/0")

    asyncio.run(run())


def test_it_logs_in_chooses_a_database_and_checks_the_server_over_tls(tmp_path: Path) -> None:
    certificate, key, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    options = ("--tls-port", str(port), "--tls-cert-file", str(certificate),
               "--tls-key-file", str(key), "--tls-auth-clients", "no")  # fmt: skip
    with own_server(tmp_path, *options) as own:
        own.client.execute_command("ACL SETUSER node on >s3cret ~* +@all")
        address = f"rediss://node:s3cret@127.0.0.1:{port}/2"
        known = f"{address}?ssl_ca_certs={certificate}"

        async def run() -> list[object]:
            found: list[object] = []
            link = await RedisLink.open(known)
            found.append((await link.ask("CLIENT", "INFO", seconds=None)).decode())
            link.close()
            for wrong in (address, known.replace("s3cret", "other")):
                try:
                    await RedisLink.open(wrong)
                except (OSError, Unavailable) as error:
                    found.append(str(error))
            return found

        told, unknown, refused = asyncio.run(run())
        assert " db=2 " in str(told)
        assert " user=node " in str(told)
        assert "certificate verify failed" in str(unknown)
        assert "invalid username-password" in str(refused)
        store = RedisStore(Settings(home=tmp_path, online_url=SecretStr(known)), "shop")
        store.publish(SET, [pack(1, 1, [1])])
        assert store.get("aaaa", 1) == (1, [1])
        assert "s3cret" not in store.where
        store.close()
