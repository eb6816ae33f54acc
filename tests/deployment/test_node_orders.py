"""A command takes a model back on every node it knows, where there are no records to ask."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.deployment.node_orders import look_at_nodes, take_back_on_nodes
from include.deployment.rollback import Order
from include.errors import Conflict, EvergreenError, Unavailable
from tests.builders.ports import free_port
from tests.builders.serving import NAME, Desk, Node, until

ORDER = Order(actor="anna", reason="bad", version=2, request_id="cli-1")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Model 2 serves, model 1 did."""
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    return desk


def take_records_away(desk: Desk) -> list[Path]:
    """Put the records' files aside, and something that cannot be opened in their place."""
    desk.records.close()
    home = desk.settings.home
    files = list(home.glob("records.db*"))
    for path in files:
        path.rename(path.with_name(f"away-{path.name}"))
    (home / "records.db").mkdir()
    return files


def bring_records_back(desk: Desk, files: list[Path]) -> None:
    (desk.settings.home / "records.db").rmdir()
    for path in files:
        path.with_name(f"away-{path.name}").rename(path)


def wait_until_two_are_loaded(node: Node) -> None:
    node.serves(2)
    until(lambda: node.health["roles"]["previous"]["state"] == "ready", what="previous model")


def test_the_node_goes_back_by_itself_and_the_records_hear_of_it_later(desk: Desk) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        take_back_on_nodes(desk.settings, NAME, ORDER)
    with desk.node() as node:
        wait_until_two_are_loaded(node)
        files = take_records_away(desk)
        (told,) = take_back_on_nodes(desk.settings, NAME, ORDER)
        assert (told.answer["scope"], told.answer["served"]["answering"]) == ("this node only", 1)
        again = Order("anna", "bad", 1, request_id="cli-2")
        with pytest.raises(Conflict, match="no earlier champion"):
            take_back_on_nodes(desk.settings, NAME, again)
        with pytest.raises(EvergreenError, match="served are: loans"):
            take_back_on_nodes(desk.settings, "nobody", ORDER)
        bring_records_back(desk, files)
        until(lambda: desk.records.routes.get(NAME).champion == 1, what="the rollback on record")
    entry = desk.records.audit.entries(NAME)[-1]
    assert (entry.actor, entry.details["claim"]) == ("node token", "anna")


def test_every_node_is_asked_and_a_dead_one_is_named(desk: Desk) -> None:
    ports = [desk.settings.node_port, free_port(), free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    settings = desk.settings.model_copy(update={"node_urls": f"{urls[0]}, {urls[1]}/,{urls[2]}"})
    second = Node(settings.model_copy(update={"node_port": ports[1]}))
    with desk.node() as first:
        second.start()
        try:
            for node in (first, second):
                wait_until_two_are_loaded(node)
            seen = look_at_nodes(settings, NAME)
            assert [one.answer.get("model_version") for one in seen] == [2, 2, None]
            files = take_records_away(desk)
            told = take_back_on_nodes(settings, NAME, ORDER)
            assert [one.url for one in told] == urls
            assert [one.answer["served"]["answering"] for one in told[:2]] == [1, 1]
            assert "does not answer" in str(told[2].problem)
            bring_records_back(desk, files)
            until(lambda: desk.records.routes.get(NAME).champion == 1, what="it on record")
            until(
                lambda: (
                    not list((desk.settings.home / "serving").glob("rollbacks-*.json"))
                    or all(
                        b'"entries":[]' in path.read_bytes()
                        for path in (desk.settings.home / "serving").glob("rollbacks-*.json")
                    )
                ),
                what="end of both journals",
            )
        finally:
            second.stop()
    taken = [
        entry
        for entry in desk.records.audit.entries(NAME)
        if entry.action.startswith("release.rolled_back")
    ]
    assert len(taken) == 1, "one request is one rollback, however many nodes noted it"


@pytest.mark.parametrize("urls", ["node-1:8600", "ftp://node-1", "http://user:word@node-1", ","])
def test_an_address_that_is_none_is_refused(urls: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="node_urls"):
        Settings(home=tmp_path, node_urls=urls)


def test_without_addresses_the_node_of_this_machine_is_meant(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, node_port=8611)
    assert settings.node_addresses == ["http://127.0.0.1:8611"]


class _Stranger(BaseHTTPRequestHandler):
    """A program that is no node, and answers everything."""

    content = b"<html>Welcome</html>"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("content", [b"<html>Welcome</html>", b"[]", b'{"use_cases": []}'])
def test_another_program_at_a_nodes_address_is_named_and_holds_up_no_other(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Stranger, "content", content)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings = Settings(
            home=tmp_path,
            node_urls=f"http://127.0.0.1:{server.server_port},http://127.0.0.1:{free_port()}",
        )
        try:
            stranger, dead = look_at_nodes(settings, NAME)
            assert (stranger.answer, dead.answer) == ({}, {})
            if content.startswith(b"{"):  # it says at least what a node could
                return
            assert "no node of Evergreen" in str(stranger.problem)
            with pytest.raises(Unavailable, match=r"no node of Evergreen.*does not answer"):
                take_back_on_nodes(settings, NAME, ORDER)
        finally:
            server.shutdown()
            thread.join()
