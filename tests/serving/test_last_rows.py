"""A node without its records: it serves the rows of the last time, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from include.clock import utc_now
from include.records.records import AuditEntry, ServingRows
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
    last.path.write_text(json.dumps({**before, "format": 2}))
    assert last.read() == ServingRows(()), "what another format means nobody knows"
    last.write(rows)
    whole = last.path.read_bytes()
    for damaged in (
        whole[:-10],
        whole.replace(b'"loans"', b'"lo\xe1ns"', 1),
        b'{"format": 1, "rows": [{"note": ' + b"[" * 100_000,
    ):
        assert damaged != whole
        last.path.write_bytes(damaged)
        assert last.read() == ServingRows(())


def test_the_epoch_is_kept_with_the_rows_and_a_file_of_before_is_of_the_first(
    tmp_path: Path,
) -> None:
    """A node that starts from its file would follow the generations of before a restore else."""
    path = tmp_path / "rows.json"
    LastRows(path).write(ServingRows((), head=7, epoch=3))
    assert LastRows(path).read() == ServingRows((), head=7, epoch=3)
    path.write_text('{"format": 1, "rows": [], "head": 7}')
    assert LastRows(path).read() == ServingRows((), head=7, epoch=1)


def entry(action: str) -> AuditEntry:
    return AuditEntry(action, NAME, "2", "test", {}, utc_now())


def test_a_file_of_before_has_no_release_and_one_of_now_has_all_of_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    last = LastRows(tmp_path / "serving" / "rows.json")
    last.write(desk.records.serving_rows())
    rows = last.read()
    before = json.loads(last.path.read_text())
    for row in before["rows"]:  # as a version wrote it that knew of no releases
        del row["release"], row["beat"]
        for name in ("release_id", "mode", "share", "release_key"):
            del row["route"][name]
    last.path.write_text(json.dumps(before))
    assert last.read() == rows

    desk.train(2)
    model = desk.records.models.get(NAME, 2)
    assert model is not None
    release = desk.records.releases.request(
        NAME,
        partition=model.partition,
        model=model,
        opponent=1,
        judged_generation=1,
        plan={"steps": [{"share": 500}], "watch": 60.0},
        description=None,
        entry=entry("release.requested"),
    )
    release = desk.records.releases.begin(release, entry("release.begun"))
    desk.records.releases.beat(NAME, release.id, 180.0)
    rows = desk.records.serving_rows()
    last.write(rows)
    assert last.read() == rows
    (row,) = last.read().rows
    assert (row.release, row.route.share) == (replace(release, revision=0), 500)
    assert (rows.rows[0].beat is not None, row.beat) == (True, None)
    written = last.path.stat().st_mtime_ns
    desk.records.releases.beat(NAME, release.id, 180.0)
    desk.records.releases.note(release, {"word": "hold"}, entry("release.judged"))
    verdict = desk.records.serving_rows()
    assert verdict.rows == rows.rows, "neither a beat nor a verdict is news for a node"
    last.write(replace(verdict, head=rows.head))
    assert last.path.stat().st_mtime_ns == written
    assert last.path.stat().st_mode & 0o077 == 0, "the key of a release is a secret"
