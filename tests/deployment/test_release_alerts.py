"""What a person is told of a release: each end once, whoever made it, and whoever takes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from include.alerts import webhook
from include.clock import wait_for
from include.config import settings as environment
from include.config.settings import Settings
from include.deployment import release_alerts
from include.deployment.judge_release import step_over, turn
from include.deployment.release_alerts import Courier, deliver_alerts, due_alerts
from include.deployment.release_ends import LATEST, end_event, new_alerts, new_ends
from include.deployment.rollback import record_rollback
from include.pipeline.task_failures import failed_task
from include.predictions.window_counts import ERRORS, REQUESTS, Counts
from include.records.records import AuditEntry, Records, Release
from include.records.release_reports import Window
from tests.builders.releases import entry, request, sign_model, under_way
from tests.builders.webhook_server import WebhookServer, webhook_server

KEY = "2026-01-02"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    monkeypatch.setattr(webhook, "TRY_SECONDS", 0.5)
    with webhook_server() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = Settings(home=tmp_path, alert_url=server.url)
    Records.open(made.records_address).migrate()
    monkeypatch.setattr(environment, "settings", lambda: made)
    return made


@pytest.fixture
def records(home: Settings) -> Records:
    return Records.open(home.records_address)


def deliver(home: Settings, *, seconds: float = 30.0) -> tuple[int, str]:
    """Deliver once, without pauses between the tries."""
    done = deliver_alerts(
        home,
        "shop",
        actor="test",
        send=lambda url, alert: webhook.send(url, alert, seconds=seconds, pauses=(0.01,)),
    )
    return len(done.delivered), done.problem


def newest(records: Records) -> Release:
    return records.releases.of("shop", limit=1)[0]


def fail_some(records: Records, release: Release) -> None:
    """Have errors counted of the challenger, which a node saw."""
    counts, minute = Counts(), int(records.releases.now().timestamp()) // 60
    counts.clusters[0][REQUESTS], counts.clusters[0][ERRORS] = 40, 30
    counts.error_kinds["model_late"] = 30
    window = Window("shop", release.id, 0, "shadow", "challenger", "n", "b", minute, counts.plain())
    records.releases.put_windows([window])


def test_what_the_judge_has_rolled_back_is_told_with_its_causes(
    home: Settings, records: Records, server: WebhookServer
) -> None:
    release = under_way(records, KEY)
    fail_some(records, release)
    changed = AuditEntry("features.published", "shop", KEY, "airflow", {}, records.releases.now())
    records.audit.append(changed)
    records.releases.latch("shop", release.id, "node-1", "boot", "it answers NaN")
    turn(home, "shop", release.id)
    assert deliver(home) == (1, "")
    [told] = server.taken
    assert (told["event"], told["use_case"]) == ("release.rolled_back", "shop")
    assert "is rolled back: the guard of node-1 sent its traffic home" in told["text"]
    details = told["details"]
    assert (details["end"], details["by"], details["model"]) == ("rolled_back", "judge", 2)
    assert details["causes"][0] == {"cause": "error", "kind": "model_late", "count": 30}
    change = details["causes"][-1]
    assert (change["cause"], change["change"]) == ("change", "features.published")
    [row] = records.audit.entries("shop", action="release.rolled_back")
    assert row.details["verdict"]["causes"] == details["causes"]
    assert deliver(home) == (0, "")
    assert len(server.taken) == 1


def test_an_end_by_whatever_hand_is_told_once_and_by_whom(
    home: Settings, records: Records, server: WebhookServer
) -> None:
    first = under_way(records, KEY)
    fail_some(records, first)
    request(records, 3, "2026-01-03", waits=True)
    record_rollback(records, "shop", "anna", "it is no good", of="challenger")
    assert deliver(home) == (2, "")
    told = {one["details"]["release"]: one for one in server.taken}
    mine = told.pop(first.id)["details"]
    assert (mine["end"], mine["by"], mine["reason"]) == ("rolled_back", "anna", "it is no good")
    assert mine["causes"][0]["kind"] == "model_late", "they are counted where no verdict has any"
    [waited] = told.values()
    assert waited["event"] == "release.aborted"
    assert (waited["details"]["by"], waited["details"]["reason"]) == (
        "anna",
        "trained before a rollback",
    )


def test_good_ends_are_no_alert_and_old_ones_are_none_any_more(
    home: Settings, records: Records
) -> None:
    release = under_way(records, KEY)
    records.releases.promote(release, entry("release.promoted"), None)
    promoted = records.releases.settle(newest(records), entry("release.settled"))
    request(records, 3, "2026-01-03")
    for version, key in ((4, "2026-01-04"), (5, "2026-01-05")):
        request(records, version, key, waits=True)
    now = records.releases.now()
    assert [one.state for one in new_ends(records, "shop", now)] == ["promoted", "superseded"]
    assert new_alerts(records, "shop", now) == []
    assert end_event(records, promoted)["by"] == "test"
    records.releases.abort(records.releases.running("shop"), "late", entry("release.aborted"))  # type: ignore[arg-type]
    assert len(new_alerts(records, "shop", now)) == 1
    assert new_alerts(records, "shop", now + LATEST + timedelta(minutes=1)) == []


def test_that_a_person_is_asked_is_told_too(
    home: Settings, records: Records, server: WebhookServer
) -> None:
    release = under_way(records, KEY)
    sign_model(home, records, 2)
    wrong = Window("shop", release.id, 0, "shadow", "challenger", "one", "boot", 1, {"x": 1})
    records.releases.put_windows([wrong])
    for _ in range(2):
        turn(home, "shop", release.id)
    assert deliver(home) == (1, "")
    [told] = server.taken
    assert told["event"] == "release.asks_a_person"
    assert "a person is asked to look at release" in told["text"]
    assert "what nodes have counted cannot be read" in told["text"]


@pytest.mark.parametrize("kind", ["sick", "slow", "away"])
def test_what_nobody_takes_is_due_until_somebody_does(
    home: Settings, records: Records, server: WebhookServer, kind: str
) -> None:
    records.releases.abort(under_way(records, KEY), "a wish", entry("release.aborted"))
    place = home
    if kind == "sick":
        server.statuses = [500]
    elif kind == "slow":
        server.wait = 2.0
    else:
        place = home.model_copy(update={"alert_url": SecretStr("http://127.0.0.1:1/s3cret")})
    count, problem = deliver(place, seconds=0.5 if kind == "slow" else 30.0)
    assert (count, "127.0.0.1 has not taken the alert" in problem) == (0, True)
    assert "s3cret" not in problem
    assert len(due_alerts(records, "shop")) == 1
    assert records.audit.entries("shop", action="alert.delivered") == []
    server.statuses, server.wait = [200], 0.0
    assert deliver(home) == (1, "")
    assert due_alerts(records, "shop") == []
    [row] = records.audit.entries("shop", action="alert.delivered")
    assert (row.details["host"], row.details["status"]) == ("127.0.0.1", 200)


def test_no_address_is_no_alert_and_no_complaint(home: Settings, records: Records) -> None:
    records.releases.abort(under_way(records, KEY), "a wish", entry("release.aborted"))
    assert deliver(home.model_copy(update={"alert_url": SecretStr("")})) == (0, "")
    assert Courier().deliver_soon(Settings(home=home.home), "shop", actor="test") is False


def test_two_that_deliver_at_once_do_it_once(
    home: Settings, records: Records, server: WebhookServer
) -> None:
    records.releases.abort(under_way(records, KEY), "a wish", entry("release.aborted"))
    server.wait = 0.2
    threads = [threading.Thread(target=deliver, args=(home,)) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(server.taken) == 1
    assert deliver(home) == (0, "")


def test_a_rollback_waits_for_no_address(
    home: Settings, records: Records, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge's look is over at once; the alert goes beside it, and is not started twice."""
    server.may_answer.clear()
    own = Courier()
    monkeypatch.setattr(release_alerts, "courier", own)
    release = under_way(records, KEY)
    records.releases.latch("shop", release.id, "node-1", "boot", "it answers NaN")
    monkeypatch.setattr(webhook.send, "__kwdefaults__", {"seconds": 60.0, "pauses": ()})
    answer = step_over("shop", KEY, 0)
    assert len(due_alerts(records, "shop")) == 1, "it is over, and nobody has answered yet"
    assert answer is not None
    assert answer["state"] == "rolled_back"
    assert own.deliver_soon(home, "shop", actor="test") is False, "one is on its way"
    server.may_answer.set()
    assert wait_for(lambda: due_alerts(records, "shop") == [], seconds=60, every=0.1)
    assert len(server.taken) == 1


def test_an_address_that_takes_nothing_is_asked_again_after_a_while(
    home: Settings, records: Records, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.statuses = [404]
    now = [1000.0]
    courier = Courier(clock=lambda: now[0])
    records.releases.abort(under_way(records, KEY), "a wish", entry("release.aborted"))

    def go() -> bool:
        started = courier.deliver_soon(home, "shop", actor="test")
        assert wait_for(lambda: not courier._busy.locked(), seconds=60, every=0.02)
        return started

    assert (go(), go(), len(server.taken)) == (True, False, 1)
    now[0] += release_alerts.RETRY_SECONDS
    server.statuses = [200]
    assert (go(), len(server.taken)) == (True, 2)
    assert go() is True, "its own audit row is new"
    assert go() is False, "nothing is new: no look at releases"


def test_causes_are_none_where_counts_are_of_another_version(records: Records) -> None:
    release = under_way(records, KEY)
    wrong = Window("shop", release.id, 0, "shadow", "challenger", "one", "boot", 1, {"x": 1})
    records.releases.put_windows([wrong])
    ended: Any = records.releases.abort(release, "a wish", entry("release.aborted"))
    assert end_event(records, ended)["causes"] == []


def test_a_release_that_was_rolled_back_is_told_and_not_its_task_too(
    home: Settings, records: Records, server: WebhookServer
) -> None:
    release = under_way(records, KEY)
    records.releases.latch("shop", release.id, "node-1", "boot", "it answers NaN")
    turn(home, "shop", release.id)
    assert release.partition == KEY
    details = {"run": "r", "task": "shadow", "try": 1, "error": "ArtefactError", "reason": "NaN"}
    for dag, key in (("deploy_model", KEY), ("deploy_model", "2026-01-05"), ("train_model", KEY)):
        told = details | {"dag": f"shop__{dag}", "run": f"of {key}"}
        now = records.releases.now()
        records.audit.append(failed_task("shop", key, told, is_live=True, at=now))
    assert deliver(home) == (3, "")
    assert [one["id"] for one in server.taken[1:]] == [
        "task.failed/shop__deploy_model/of 2026-01-05",
        f"task.failed/shop__train_model/of {KEY}",
    ]
    assert server.taken[0]["event"] == "release.rolled_back"
