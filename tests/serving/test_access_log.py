"""The access log: who is in it, what a line holds, and that nobody can fill the disk with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.serving import access_log
from include.serving.access_log import AccessLog
from tests.builders.application import TOKEN, Client
from tests.builders.serving import NAME, ROW

SCOPE = {"type": "http", "method": "POST", "path": "/x", "client": ("192.0.2.7", 1), "caller": ""}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_line_says_who_asked_what_and_holds_no_ones_data(client: Client, tmp_path: Path) -> None:
    client.serve()
    client.app.access_log = AccessLog(tmp_path / "access.jsonl", 1.0)
    named = {"x-request-id": "r-1", "authorization": f"Bearer {TOKEN}"}
    client.ask("POST", f"/v1/{NAME}/predict?secret=1", json={"features": ROW}, headers=named)
    client.ask("POST", f"/v1/{NAME}/reload", headers=named)
    client.ask("GET", "/v1/nobody/" + "x" * 500)
    predicted, reloaded, unknown = lines(tmp_path / "access.jsonl")
    assert predicted.pop("at").endswith("+00:00")
    assert 0 < predicted.pop("ms") < 60_000
    assert predicted == {
        "request_id": "r-1",
        "client": "127.0.0.1",
        "caller": None,  # no token was asked for
        "method": "POST",
        "path": f"/v1/{NAME}/predict",
        "use_case": NAME,
        "route": "predict",
        "status": 200,
    }
    assert (reloaded["caller"], reloaded["route"], reloaded["status"]) == ("alice", "reload", 200)
    assert (unknown["use_case"], unknown["route"], unknown["status"]) == ("", "", 404)
    assert len(unknown["path"]) == 80
    assert TOKEN not in (tmp_path / "access.jsonl").read_text()


def test_a_share_of_the_ids_is_in_it_and_always_the_same(tmp_path: Path) -> None:
    now = iter(range(10**9))
    log = AccessLog(tmp_path / "a.jsonl", 0.1, clock=lambda: next(now))
    for number in range(5000):
        for _ in range(2):
            log.note(SCOPE, f"request-{number}", "shop", "predict", 200, 0.001)
    ids = [line["request_id"] for line in lines(tmp_path / "a.jsonl")]
    assert 350 < len(set(ids)) < 650
    assert len(ids) == 2 * len(set(ids)), "a retry is in it as the first try is"


def test_changes_of_state_and_failures_are_always_in_it(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "a.jsonl", 0.0)
    for route, status in (("predict", 200), ("predict", 422), ("predict", 503), ("rollback", 401)):
        log.note(SCOPE, "r", "shop", route, status, 0.001)
    assert [line["status"] for line in lines(tmp_path / "a.jsonl")] == [503, 401]


def test_a_flood_writes_so_many_lines_a_second_and_says_what_it_left_out(tmp_path: Path) -> None:
    now = 1000.0
    log = AccessLog(tmp_path / "a.jsonl", 1.0, clock=lambda: now)
    for _ in range(1000):
        log.note(SCOPE, "r", "shop", "predict", 503, 0.001)
    now = 1001.0
    log.note(SCOPE, "r", "shop", "predict", 503, 0.001)
    written = lines(tmp_path / "a.jsonl")
    assert len(written) == access_log.LINES_A_SECOND + 1
    assert written[-1]["dropped_before"] == 1000 - access_log.LINES_A_SECOND


def test_its_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "MAX_BYTES", 2000)
    now = iter(range(10**9))
    log = AccessLog(tmp_path / "a.jsonl", 1.0, clock=lambda: next(now))
    for _ in range(500):
        log.note(SCOPE, "r", "shop", "predict", 200, 0.001)
    files = list(tmp_path.iterdir())
    assert len(files) == access_log.KEPT_FILES + 1
    assert all(file.stat().st_size <= 2000 for file in files)


def test_what_cannot_be_written_is_counted_and_ends_no_answer(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.serve()
    lost: list[int] = []
    client.app.access_log = AccessLog(tmp_path / "a.jsonl", 1.0)
    client.app.access_log.failed = lambda: lost.append(1)
    (tmp_path / "a.jsonl").mkdir()  # no file can be opened there
    assert client.predict(features=ROW).status_code == 200
    assert client.predict(features=ROW).status_code == 200
    assert (len(lost), capsys.readouterr().err) == (2, "")
