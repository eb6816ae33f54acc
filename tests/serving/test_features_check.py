"""A model is released only where most entities that are alive have the features that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from include.deployment.description import Decision, Description, EntityKey, Fallback, ServedView
from include.errors import Unavailable
from include.features import online_rows, online_store
from include.serving import features_check
from include.serving.features_check import (
    OnlineCheck,
    check_challenger,
    look_online,
    refuse_too_few,
)
from include.serving.snapshot import Loaded
from include.serving.workers import Workers

AS_OF = datetime(2026, 3, 10, tzinfo=UTC)  # of the partition 2026-03-09
TTL = timedelta(days=30)
MINE, CHAMPIONS = "mine", "champions"


def described(stale: str = "refuse", last: date | None = None) -> Description:
    return Description(
        name="loans",
        title="Loans",
        entity=EntityKey("account", "account_id", "int64"),
        features={"facts": ServedView({"income": "float64"}, TTL.total_seconds())},
        trained=["income"],
        decision=Decision(0.5, "yes", "no"),
        fallback=Fallback("refuse", stale),
        cadence="daily",
        cut_off=0.0,
        first=date(2026, 1, 1),
        last=last,
    )


def publish(path: Path, name: str, days_old: Mapping[int, float]) -> None:
    """Put entities online whose rows are so many days old at the partition's `as_of`."""
    what = online_rows.OnlineSet(name, ("income",), "2026-03-09", TTL, AS_OF, inputs="", digest="")
    rows = [
        online_rows.pack(f"{entity:03d}", round((AS_OF.timestamp() - days * 86400) * 1e6), [1.0])
        for entity, days in days_old.items()
    ]
    online_store.publish(path, what, rows)


def check(
    path: Path, *, of: str | None = None, days_later: float = 0.5, **options: object
) -> OnlineCheck:
    now = AS_OF + timedelta(days=days_later)
    return look_online(online_store.SqliteStore(path), MINE, of, described(**options), now)  # type: ignore[arg-type]


def refusal(found: OnlineCheck) -> str:
    with pytest.raises(Unavailable) as caught:
        refuse_too_few(found, MINE, 0.95)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "loans.db"


def test_a_first_model_needs_those_who_were_alive_when_its_features_were_published(
    path: Path,
) -> None:
    # 100 alive at the publication, of whom ten expire in the two days after; 50 had expired before.
    publish(
        path,
        MINE,
        {one: 29.0 if one < 10 else 1.0 for one in range(100)}
        | dict.fromkeys(range(100, 150), 31.0),
    )
    fresh = check(path)
    assert (fresh.alive, fresh.share, len(fresh.rows)) == (100, 1.0, 20)
    refuse_too_few(fresh, MINE, 0.95)
    late = check(path, days_later=2.5)
    assert (late.alive, late.share) == (100, 0.9)
    assert "90.0% of its entities" in refusal(late)
    assert check(path, days_later=2.5, last=date(2026, 3, 9)).share == 1.0, "the history has ended"
    scored = check(path, days_later=2.5, stale="score")
    assert (scored.alive, scored.share) == (150, 1.0), "expired ones are answered as well"


def test_one_entity_is_not_enough_where_more_are_alive(path: Path) -> None:
    publish(path, MINE, {1: 1.0} | dict.fromkeys(range(2, 100), 29.5))
    assert "1.0% of its entities" in refusal(check(path, days_later=1.5))


@pytest.mark.parametrize("days_old", [{}, {1: 31.0, 2: 40.0}])
def test_where_nobody_is_alive_nothing_is_released(path: Path, days_old: dict[int, float]) -> None:
    publish(path, MINE, days_old)
    assert "no entity is online whose features have not expired" in refusal(check(path))


def test_of_a_champions_entities_those_count_that_are_alive(path: Path) -> None:
    publish(path, CHAMPIONS, dict.fromkeys(range(100), 1.0) | {200: 31.0, 201: 31.0})
    publish(path, MINE, dict.fromkeys(range(95), 1.0) | dict.fromkeys(range(95, 100), 31.0))
    found = check(path, of=CHAMPIONS)
    assert (found.alive, found.share) == (100, 0.95)
    refuse_too_few(found, MINE, 0.95)
    publish(path, MINE, dict.fromkeys(range(94), 1.0) | dict.fromkeys(range(94, 100), 31.0))
    assert "94.0% of the champion's entities" in refusal(check(path, of=CHAMPIONS))


@pytest.mark.parametrize("champions", [{}, {1: 31.0}, None])
def test_a_champion_without_anybody_alive_opens_no_door(
    path: Path, champions: dict[int, float] | None
) -> None:
    """It is judged as a first one: it was let through whatever was online of it."""
    if champions is not None:
        publish(path, CHAMPIONS, champions)
    publish(path, MINE, {1: 1.0} | dict.fromkeys(range(2, 100), 29.5))
    found = check(path, of=CHAMPIONS, days_later=1.5)
    assert (found.alive, round(found.share, 3)) == (99, 0.01)
    assert "of its entities" in refusal(found)


def test_what_is_not_online_is_said_with_the_way_out(path: Path) -> None:
    with pytest.raises(Unavailable, match="is not online; run materialize_features"):
        check(path)


class Score:
    """A model that answers every row alike, or reads a feature that it may lack."""

    def __init__(self, score: float, reads: str = "income") -> None:
        self._score, self.features = score, [reads]

    def one(self, row: Mapping[str, object]) -> float:
        assert row[self.features[0]] == 1.0
        return self._score


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scorer", "reason"),
    [
        (Score(0.5), None),
        (Score(float("nan")), "answers nan for a row that is online"),
        (Score(1.5), "answers 1.5 for a row that is online"),
        (Score(0.5, reads="jobs"), "feature 'jobs' is not online"),
    ],
)
async def test_a_challenger_scores_rows_as_they_are_online(
    path: Path, monkeypatch: pytest.MonkeyPatch, scorer: Score, reason: str | None
) -> None:
    monkeypatch.setattr(features_check, "utc_now", lambda: AS_OF + timedelta(hours=12))
    publish(path, MINE, dict.fromkeys(range(30), 1.0))
    workers = Workers()
    asked = check_challenger(
        online_store.SqliteStore(path),
        workers,
        described(),
        None,
        Loaded(2, "sha256:2", MINE, "2026-03-09", scorer=scorer),
    )
    try:
        if reason is None:
            await asked
        else:
            with pytest.raises(Unavailable, match=reason):
                await asked
    finally:
        workers.close()
