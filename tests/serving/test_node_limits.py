"""A really started node under clients and faults that would end it, and when it is told to end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from include.config.settings import ROOT
from include.serving import quiet
from tests.builders.serving import NAME, NOW, ROW, Desk, Node, until


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.publish({1: (NOW, ROW)})
    made.train(1)
    made.record_route(champion=1)
    return made


FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))"


def test_idle_connections_take_no_file_that_the_node_needs(desk: Desk) -> None:
    with desk.node(FEW_FILES) as node, contextlib.ExitStack() as idle:
        node.serves(1)
        for number in range(400):  # of several peers: each has a cap of its own, too
            peer = (f"127.0.0.{2 + number % 5}", 0)
            connection = socket.create_connection(
                ("127.0.0.1", node.settings.node_port), source_address=peer
            )
            idle.callback(connection.close)
        time.sleep(1.0)
        assert node.process is not None
        assert psutil.Process(node.process.pid).num_fds() < 200, "a quarter is for its own files"
        desk.train(2)
        desk.record_route(champion=2)  # it still reads files, and starts a child
        idle.close()
        node.serves(2)
        assert node.predict(entity=1).status == 200


def test_no_single_peer_takes_all_connections(desk: Desk) -> None:
    """Another one is answered while a peer holds as many open as it can get."""
    with desk.node(FEW_FILES) as node, contextlib.ExitStack() as idle:
        node.serves(1)
        for _ in range(300):
            connection = socket.create_connection(("127.0.0.1", node.settings.node_port))
            idle.callback(connection.close)
        time.sleep(0.5)
        assert node.predict(entity=1).status in (0, 200), "at the peer's own cap, or kept alive"
        other = http.client.HTTPConnection(
            "127.0.0.1", node.settings.node_port, timeout=60, source_address=("127.0.0.2", 0)
        )
        for _ in range(3):
            other.request("GET", "/live")
            answer = other.getresponse()
            assert (answer.status, json.loads(answer.read())) == (200, {"status": "live"})
        other.close()
        idle.close()
        until(lambda: node.predict(entity=1).status == 200, what="an answer to the first peer")
        until(lambda: 'event="connection_refused"' in node.get("/metrics").body, what="the count")


def test_endless_trailers_are_refused(desk: Desk) -> None:
    with desk.node() as node:
        node.serves(1)
        with socket.create_connection(("127.0.0.1", node.settings.node_port)) as connection:
            head = f"POST /v1/{NAME}/predict HTTP/1.1\r\nhost: localhost\r\n"
            head += "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            body = b'{"entity": 1}'
            connection.sendall(head.encode() + b"%x\r\n%s\r\n0\r\n" % (len(body), body))
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 50 << 20:
                    connection.sendall(b"x-more: " + b"y" * 8000 + b"\r\n")
                    sent += 8010
        assert sent < 16 << 20, "no more than what the kernels of both ends take ahead"
        assert node.predict(entity=1).status == 200


def test_an_answer_never_repeats_more_than_a_little_of_the_question(desk: Desk) -> None:
    with desk.node() as node:
        node.serves(1)
        answer = node.predict(entity=1, **{"x" * 500_000: 1})
        assert answer.status == 422
        assert len(json.dumps(answer.body)) < 2000


DAMAGED = """
from include.serving.snapshot import Online
def fail(*_, **__):
    raise ZeroDivisionError("a row that does not decode")
Online.get = fail
"""


def test_what_nobody_expected_is_counted_and_answered_like_anything_else(desk: Desk) -> None:
    with desk.node(DAMAGED) as node:
        node.serves(1)
        for _ in range(12):
            answer = node.predict(entity=1)
            assert (answer.status, answer.body["error"]["code"]) == (500, "fault")
            assert answer.body["request_id"] == answer.headers["x-request-id"]
        metrics = node.get("/metrics").body
        assert f'answers_total{{route="predict",status="500",use_case="{NAME}"}} 12' in metrics
        assert node.log.read_text().count("Traceback") == 1
        assert node.log.read_text().count("ZeroDivisionError again") == quiet.BURST, "of 11"


def test_ready_tells_who_is_to_be_asked(desk: Desk) -> None:
    desk.record_route(champion=None)
    with desk.node() as node:
        assert node.get("/live").body == {"status": "live"}
        assert node.get("/ready").status == 200
        assert node.get(f"/ready/{NAME}").body["error"]["code"] == "no_model"
        assert node.get("/ready/nobody").status == 404
        desk.record_route(champion=1)
        node.serves(1)
        assert node.get(f"/ready/{NAME}").body == {"status": "ready", "model_version": 1}


def shared_listener(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    listener.set_inheritable(True)
    return listener


@pytest.mark.parametrize("connections", [8])
def test_a_node_that_ends_under_load_fails_no_request(desk: Desk, connections: int) -> None:
    """Another process holds the socket: who comes meanwhile waits there for the next node."""
    stop, failed, answered = threading.Event(), list[str](), list[int]()

    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", desk.settings.node_port, timeout=120)
        headers = {"content-type": "application/json"}
        while not stop.is_set():
            try:
                client.request("POST", f"/v1/{NAME}/predict", b'{"entity": 1}', headers)
                response = client.getresponse()
                response.read()
                answered.append(response.status)
                if response.status != 200:
                    failed.append(str(response.status))
            except (OSError, http.client.HTTPException) as error:
                failed.append(repr(error))
                client.close()

    with shared_listener(desk.settings.node_port) as listener, nodes(desk, listener) as start:
        first = start()
        probe = Node(desk.settings)
        probe.serves(1)
        probe.client.close()
        threads = [threading.Thread(target=ask) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            before = len(answered)
            until(lambda before=before: len(answered) > before + 100, what="answers")  # type: ignore[misc]
            first.send_signal(signal.SIGTERM)
            assert first.wait(timeout=60) == 0
            first = start()
            probe = Node(desk.settings)
            probe.serves(1)  # not before: a node that only starts is ended by the signal
            probe.client.close()
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []


@contextlib.contextmanager
def nodes(desk: Desk, listener: socket.socket) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Give a function that starts a node on a socket of ours; end what it started."""
    started: list[subprocess.Popen[bytes]] = []
    code = (
        "import socket, sys; from include.config.settings import settings\n"
        "from include.serving.node import serve\n"
        "serve(settings(), listener=socket.socket(fileno=int(sys.argv[1])))"
    )
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(desk.settings.home),
        "EVERGREEN_NODE_PORT": str(desk.settings.node_port),
    }

    def start() -> subprocess.Popen[bytes]:
        number = listener.fileno()
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, str(number)],
                cwd=ROOT,
                env=environment,
                pass_fds=[number],
            )
        )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


PATIENT = "from include.serving import node\nnode.DRAIN_SECONDS = 30.0"


def test_a_drained_node_says_so_before_it_is_gone(desk: Desk) -> None:
    with desk.node(PATIENT) as node:
        node.serves(1)
        client = http.client.HTTPConnection("127.0.0.1", node.settings.node_port, timeout=60)
        client.request("GET", "/ready")
        assert client.getresponse().read() == b'{"status":"ready"}'
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)

        def drains() -> bool:
            client.request("GET", "/ready")
            answer = client.getresponse()
            body = json.loads(answer.read())
            if answer.status == 200:  # it has not read the signal yet
                return False
            assert (answer.status, answer.getheader("connection")) == (503, "close")
            assert body["error"]["code"] == "draining"
            return True

        until(drains, what="word of the drain")
        node.client.close()
        until(lambda: node.process is None or node.process.poll() == 0, what="orderly end")
