"""Windows, beats and guards of releases, on SQLite and PostgreSQL."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from include.predictions.window_counts import Counts
from include.records.records import Records, Window
from tests.records.builders import entry


@dataclasses.dataclass(frozen=True)
class Step:
    """A release in a step."""

    use_case: str
    id: str
    step: int


AT = Step("loans", "r1", 1)
ONE = Window("loans", "r1", 1, "challenger", "challenger", "n1", "b1", 29_000_000, {"n": 1})


def test_windows_are_written_over_and_come_by_minute(records: Records) -> None:
    later = dataclasses.replace(ONE, minute=ONE.minute + 1)
    fallback = dataclasses.replace(ONE, answering="champion", counts={"n": 2})
    shadow = dataclasses.replace(ONE, step=0, arm="shadow")
    another = dataclasses.replace(ONE, release_id="r2")
    records.releases.put_windows([])
    records.releases.put_windows([later, ONE, fallback, shadow, another])
    closed = dataclasses.replace(ONE, counts={"n": 3}, closed=True)
    records.releases.put_windows([closed])
    assert records.releases.windows("loans", "r1") == [shadow, closed, fallback, later]
    assert records.releases.windows("loans", "r1", step=0) == [shadow]
    assert records.releases.windows("loans", "r3") == []
    assert records.audit.entries() == []


def test_of_one_source_the_newest_finding_of_a_step_stays(records: Records) -> None:
    put = records.releases.put_gathered
    for source, content in (("one", {"bad": 1}), ("two", {"bad": 2}), ("one", {"bad": 3})):
        put(AT, "parity", source, content)
    put(dataclasses.replace(AT, step=2), "parity", "one", {"bad": 4})
    put(dataclasses.replace(AT, id="r2"), "parity", "one", {"bad": 5})
    found = records.releases.gathered("loans", "r1")
    assert [(row.step, row.source, row.content["bad"]) for row in found] == [
        (1, "two", 2),
        (1, "one", 3),
        (2, "one", 4),
    ]
    records.releases.remove_windows("loans", "r1")
    assert records.releases.gathered("loans", "r1") == []
    assert len(records.releases.gathered("loans", "r2")) == 1


def test_counts_come_back_as_they_were_noted(records: Records) -> None:
    counts = Counts(error_kinds={"time_out": 3}, dropped=2)
    records.releases.put_windows([dataclasses.replace(ONE, counts=counts.plain())])
    (window,) = records.releases.windows("loans", "r1")
    assert Counts.read(window.counts) == counts


def test_nodes_write_their_windows_at_once(records: Records) -> None:
    def write(number: int) -> None:
        for minute in range(5):
            window = dataclasses.replace(ONE, node=f"n{number % 4}", minute=minute)
            records.releases.put_windows([window, dataclasses.replace(window, step=2)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(records.releases.windows("loans", "r1")) == 4 * 5 * 2


def test_a_guard_keeps_its_first_reason(records: Records) -> None:
    records.releases.latch("loans", "r1", "n2", "b1", "NaN")
    records.releases.latch("loans", "r1", "n2", "b2", "slow")
    records.releases.latch("loans", "r1", "n1", "b1", "errors")
    records.releases.latch("loans", "r2", "n1", "b1", "errors")
    guards = records.releases.guards("loans", "r1")
    assert [(one.node, one.boot, one.reason) for one in guards] == [
        ("n1", "b1", "errors"),
        ("n2", "b1", "NaN"),
    ]


def test_the_number_of_a_beat_rises_over_releases_and_judges(records: Records) -> None:
    assert records.releases.last_beat("loans") is None
    before = records.releases.now()
    assert [records.releases.beat("loans", name, 180.0) for name in ("r1", "r1", "r2")] == [1, 2, 3]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: records.releases.beat("loans", "r2", 60.0), range(16)))
    assert sorted(numbers) == list(range(4, 20))
    beat = records.releases.last_beat("loans")
    assert beat is not None
    assert (beat.release_id, beat.beat, beat.seconds) == ("r2", 19, 60.0)
    assert before <= beat.at <= records.releases.now()
    assert records.audit.entries() == []
    assert records.releases.beat("cards", "r9", 60.0) == 1


def test_all_that_is_said_of_releases_goes_with_the_use_case(records: Records) -> None:
    records.releases.put_windows([ONE, dataclasses.replace(ONE, use_case="cards")])
    records.releases.latch("loans", "r1", "n1", "b1", "errors")
    records.releases.beat("loans", "r1", 60.0)
    records.releases.put_gathered(AT, "parity", "one", {})
    records.releases.freeze("loans", records.releases.now(), entry("frozen"))
    counts = records.forget("loans", entry=entry("use_case.reset"))
    tables = ("windows", "guards", "beats", "evidence")
    assert [counts[f"release_{table}"] for table in tables] == [1, 1, 1, 1]
    assert counts["freezes"] == 1
    assert set(records.forget("loans").values()) == {0}
    assert len(records.releases.windows("cards", "r1")) == 1
