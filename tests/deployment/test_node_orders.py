"""A command takes a model back on the node of its machine, where there are no records to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.deployment.node_orders import take_back_on_node
from include.deployment.rollback import Order
from include.errors import Conflict, EvergreenError, Unavailable
from tests.builders.serving import NAME, Desk, until

ORDER = Order(actor="anna", reason="bad", version=2, request_id="cli-1")


def test_the_node_goes_back_by_itself_and_the_records_hear_of_it_later(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    with pytest.raises(Unavailable, match="does not answer either"):
        take_back_on_node(desk.settings, NAME, ORDER)
    with desk.node() as node:
        node.serves(2)
        until(lambda: node.health["roles"]["previous"]["state"] == "ready", what="previous model")
        desk.records.close()
        files = list(tmp_path.glob("records.db*"))
        for path in files:
            path.rename(path.with_name(f"away-{path.name}"))
        (tmp_path / "records.db").mkdir()
        told = take_back_on_node(desk.settings, NAME, ORDER)
        assert (told["scope"], told["served"]["answering"]) == ("this node only", 1)
        with pytest.raises(Conflict, match="no earlier champion"):
            take_back_on_node(desk.settings, NAME, Order("anna", "bad", 1, request_id="cli-2"))
        with pytest.raises(EvergreenError, match="served are: loans"):
            take_back_on_node(desk.settings, "nobody", ORDER)
        (tmp_path / "records.db").rmdir()
        for path in files:
            path.with_name(f"away-{path.name}").rename(path)
        until(lambda: desk.records.routes.get(NAME).champion == 1, what="the rollback on record")
    entry = desk.records.audit.entries(NAME)[-1]
    assert (entry.actor, entry.details["claim"]) == ("node token", "anna")
