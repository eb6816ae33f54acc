"""A node without its records: it serves the rows of the last time, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from include.records.records import ServingRows
from include.serving.last_rows import LastRows
from tests.builders.serving import NAME, NOW, ROW, Desk, Node, until


def metric(node: Node, name: str) -> float:
    lines = [line for line in node.get("/metrics").body.splitlines() if f'state="{name}"' in line]
    return float(lines[0].split()[-1])


def test_a_node_starts_from_its_last_rows_when_the_records_are_away(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    desk.train(1)
    desk.record_route(champion=1)
    database = tmp_path / "records.db"
    with desk.node() as node:
        node.serves(1)
        assert node.get("/health").body["records"] == {"reachable": True, "rows_from": "records"}
        assert metric(node, "rows_from_file") == 0
        desk.records.close()
        node.stop()
        files = list(tmp_path.glob("records.db*"))
        for path in files:
            path.rename(path.with_name(f"away-{path.name}"))
        database.mkdir()  # it cannot be opened
        node.start(healthy=False)
        until(lambda: node.predict(entity=1).status == 200, what="answer from the last rows")
        health = node.get("/health").body
        assert health["status"] == "degraded"
        assert health["records"] == {"reachable": False, "rows_from": "file"}
        assert metric(node, "rows_from_file") == 1
        assert metric(node, "reachable") == 0
        database.rmdir()
        for path in files:
            path.with_name(f"away-{path.name}").rename(path)
        until(lambda: node.get("/health").body["status"] == "ok", what="the records")
        assert metric(node, "rows_from_file") == 0
        assert node.predict(entity=1).status == 200


def test_rows_are_read_as_they_were_written_and_a_damaged_file_is_passed_over(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    rows = desk.records.serving_rows()
    assert [row.route.use_case for row in rows.rows] == [NAME]
    assert rows.head == desk.records.audit.head()[0]
    last = LastRows(tmp_path / "serving" / "rows.json")
    assert last.read() == ServingRows(())
    last.write(rows)
    assert LastRows(last.path).read() == rows
    before = json.loads(last.path.read_text())
    del before["head"]  # as a version wrote it that kept none
    last.path.write_text(json.dumps(before))
    assert last.read() == replace(rows, head=0)
    last.path.write_bytes(last.path.read_bytes()[:-10])
    assert last.read() == ServingRows(())
