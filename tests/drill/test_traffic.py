"""What the drill counts of its traffic: answers, failures, and requests sent once more."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.builders.ports import free_port
from tests.drill.traffic import Tally, Traffic

ANSWER = b'{"model_version": 7, "flags": []}'


@contextmanager
def server(status: int, *, drops: bool = False) -> Iterator[int]:
    """Answer every request with a status, or read it and drop the connection."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if drops:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, *_: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made.server_address[1]
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def ask(*ports: int) -> Tally:
    traffic = Traffic(ports, rate=400)
    with traffic.running():
        time.sleep(0.5)
    return traffic.take()


def test_a_node_that_refuses_connections_costs_nothing() -> None:
    with server(200) as port:
        traffic = Traffic([port, free_port()], rate=400)
        with traffic.running():
            time.sleep(0.5)
        answered, tally = traffic.answered_by(7), traffic.take()
    assert answered == tally.requests > 20
    assert (tally.failed, tally.lost) == ([], 0)


def test_a_request_whose_node_dies_with_it_is_asked_once_more_and_counted() -> None:
    with server(200) as good, server(200, drops=True) as bad:
        tally = ask(good, bad)
    assert tally.failed == []
    assert tally.requests >= tally.lost > 5


def test_what_is_no_answer_is_a_failure_and_so_is_a_request_lost_twice() -> None:
    with server(503) as sick:
        tally = ask(sick)
    assert len(tally.failed) == tally.requests > 20
    with server(200, drops=True) as bad:
        tally = ask(bad)
    assert len(tally.failed) == tally.requests > 5
