"""What a page says of releases: each state in words, from real records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.deployment.release_view import Shown, read_view
from include.records.records import Records, Release
from tests.builders.releases import AT, entry, request, under_way

KEY = "2026-01-02"
VERDICT: dict[str, Any] = {
    "word": "hold",
    "reason": "3 of 10 requests",
    "evidence": {
        "errors": {
            "word": "pass",
            "challenger": 0.01,
            "champion": 0.0,
            "margin": 0.02,
            "would_have_seen": None,
            "evidence": 0.3,
            "fails_at": 900.0,
        },
        "auc": {"word": "not known", "reason": "its first outcomes are mature tomorrow"},
        "burn rate": {
            **{"in 10 min": 2.5, "in 2 min": 0.0, "bad": 3, "requests": 1200, "minutes": 1},
            **{
                "champion in 10 min": 0.0,
                "champion in 2 min": 0.0,
                "champion bad": 0,
                "champion requests": 900,
            },
        },
    },
    "causes": [
        {"cause": "error", "kind": "model_late", "count": 3},
        {"cause": "node", "node": "n1", "errors": 3, "requests": 9},
        {"cause": "change", "change": "features.published", "use_case": "shop", "at": "12:00"},
        {"cause": "stale features", "view": "spend", "seconds": 90.0},
    ],
}


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    opened.migrate()
    yield opened
    opened.close()


def now_shown(records: Records) -> Shown:
    shown = read_view(records, "shop").now
    assert shown is not None
    return shown


def running(records: Records) -> Release:
    release = records.releases.running("shop")
    assert release is not None
    return release


def test_without_a_release_there_is_nothing_but_the_champion(records: Records) -> None:
    view = read_view(records, "shop")
    assert (view.champion, view.now, view.waiting, view.frozen) == (None, None, None, "")
    assert view.last == []


def test_a_release_is_shown_with_its_steps_its_evidence_and_what_it_waits_for(
    records: Records,
) -> None:
    release = under_way(records, KEY)
    ends = (records.releases.now() + timedelta(minutes=9)).isoformat()
    records.releases.note(release, {**VERDICT, "ends_at": ends}, entry())
    records.releases.beat("shop", release.id, 60.0)
    records.releases.latch("shop", release.id, "n1", "boot", "it answers NaN")
    shown = now_shown(records)
    assert (shown.model, shown.partition, shown.state, shown.tone) == (2, KEY, "shadow", "good")
    assert [(step.name, step.state) for step in shown.steps] == [
        ("shadow", "now"),
        ("5 %", "later"),
        ("champion, watched", "later"),
    ]
    assert (shown.word, shown.says) == ("hold", "3 of 10 requests")
    assert shown.ends_at.endswith((", in 8 min", ", in 9 min"))
    assert shown.since.endswith(" ago")
    assert shown.judged.endswith("s ago")
    errors, auc, burn = shown.evidence
    assert (errors.name, errors.word, errors.challenger, errors.champion, errors.more) == (
        "errors",
        "pass",
        "1.00%",
        "0.00%",
        "margin 2.00%",
    )
    assert (auc.word, auc.more) == ("not known", "its first outcomes are mature tomorrow")
    assert (burn.word, burn.challenger, burn.champion) == ("", "2.5", "0")
    assert burn.more == (
        "times the budget, in 10 min; its in 2 min 0, 3 bad of 1,200; "
        "the champion's in 2 min 0, 0 bad of 900"
    )
    assert shown.causes == [
        "3 errors: model_late",
        "3 of the errors on n1",
        "changed meanwhile: features.published of shop, at 12:00",
        "stale features: view spend, seconds 90.0",
    ]
    assert shown.notes == ["node n1 sends its traffic home: it answers NaN"]


def test_each_state_has_its_words(records: Records) -> None:
    release = under_way(records, KEY)
    assert now_shown(records).says == "it is not judged yet"
    records.releases.note(release, VERDICT, entry())
    release = records.releases.advance(running(records), {"word": "pass", "reason": "x"}, entry())
    shown = now_shown(records)
    assert (shown.state, shown.says) == ("5 %", "it is not judged yet"), "the step is another one"
    release = records.releases.pause(release, entry())
    assert (now_shown(records).state, now_shown(records).tone) == ("5 %, paused", "held")
    release = records.releases.suspend(records.releases.unpause(release, entry()), entry())
    assert now_shown(records).state == "5 %, suspended"
    release = records.releases.resume(release, 0.0, entry())
    request(records, 3, "2026-01-03", waits=True)
    waiting = read_view(records, "shop").waiting
    assert waiting is not None
    assert (waiting.model, waiting.state) == (3, "waiting")
    records.releases.freeze("shop", AT.replace(year=2100), entry())
    assert read_view(records, "shop").frozen.startswith("until 2100-01-20 00:00 UTC, by test")
    records.releases.promote(release, entry(), None)
    assert now_shown(records).state == "champion, watched"
    assert [step.state for step in now_shown(records).steps] == ["done", "done", "now"]
    assert read_view(records, "shop").champion == 2
    records.releases.roll_back(records.releases.watched("shop"), "it is bad", entry())  # type: ignore[arg-type]
    view = read_view(records, "shop")
    assert (view.now, view.waiting, view.champion) == (None, None, 1)
    assert {(one.model, one.state, one.tone, one.says) for one in view.last} == {
        (2, "rolled back", "bad", "it is bad"),
        (3, "aborted", "held", "trained before a rollback"),
    }


def test_one_that_is_only_tried_and_a_plan_of_tomorrow_are_shown_too(records: Records) -> None:
    release = request(records, 1, KEY)
    assert (now_shown(records).state, now_shown(records).says) == (
        "being tried",
        "a node has to load it first",
    )
    records.releases.abort(release, "a wish", entry())
    under_way_plan = {"kind": "of tomorrow", "steps": [{"share": 100}]}
    release = request(records, 2, KEY)
    with records.transaction() as session:
        from include.records.schema import ReleaseRow

        row = session.get_one(ReleaseRow, ("shop", release.id))
        row.plan, row.state = under_way_plan, "running"
    shown = now_shown(records)
    assert (shown.state, shown.steps) == ("step 1", [])
