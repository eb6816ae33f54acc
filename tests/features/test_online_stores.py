"""What every store of online features must do: the same tests over SQLite and over a real Redis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.config.settings import Settings
from include.errors import Busy, ConfigError, Conflict, Unavailable
from include.features.online_rows import OnlineSet, OnlineView, Value, pack, rows_digest
from include.features.online_stores import OnlineStore, open_store
from tests.builders import redis_server

SET = OnlineSet(
    "aaaa",
    ("x", "y"),
    "2025-01-01",
    timedelta(days=3),
    datetime(2025, 1, 2, tzinfo=UTC),
    "inputs",
    "digest",
)
EVER = (-(1 << 62), -(1 << 62))


def of(partition: str, feature_set: str = "aaaa") -> OnlineSet:
    return dataclasses.replace(SET, partition=partition, feature_set=feature_set)


@pytest.fixture(params=["sqlite", "redis"])
def chosen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """The settings of an installation whose online features are in one store or the other."""
    if request.param == "sqlite":
        yield Settings(home=tmp_path)
        return
    with redis_server.prefix() as own:
        url = SecretStr(redis_server.URL)
        yield Settings(home=tmp_path, online_url=url, online_prefix=own)


@pytest.fixture
def store(chosen: Settings) -> Iterator[OnlineStore]:
    opened = open_store(chosen, "shop")
    yield opened
    opened.close()


def test_a_row_comes_back_as_it_went_in(store: OnlineStore) -> None:
    values: list[Value] = [
        None, True, False, -3, 2**53, 0.1, math.inf, -0.0, "", "ä\N{SNOWMAN}'\"; drop table rows",
    ]  # fmt: skip
    store.publish(SET, [pack(7, 1_700_000_000_000_001, values), pack("o'brien\n é", -5, [])])
    assert store.get("aaaa", 7) == (1_700_000_000_000_001, values)
    assert store.get("aaaa", "7") == store.get("aaaa", 7)
    assert store.get("aaaa", "o'brien\n é") == (-5, [])
    assert store.get("aaaa", 8) is None
    assert store.get("bbbb", 7) is None
    assert store.describe("aaaa") == SET
    assert store.count("aaaa") == 2
    assert "shop" in store.where or "keys" in store.where


def test_views_and_their_ttls_are_kept(store: OnlineStore) -> None:
    views = (OnlineView("v", 5, ("x",)), OnlineView("w", 7, ("y",)))
    store.publish(dataclasses.replace(SET, views=views), [])
    described = store.describe("aaaa")
    assert described is not None
    assert described.views == views


def test_nan_is_kept(store: OnlineStore) -> None:
    store.publish(SET, [pack(1, 0, [math.nan])])
    found = store.get("aaaa", 1)
    assert found is not None
    assert math.isnan(float(found[1][0] or 0))


def test_a_set_without_an_entity_is_online_and_knows_nobody(store: OnlineStore) -> None:
    store.publish(SET, [])
    assert (store.describe("aaaa"), store.count("aaaa")) == (SET, 0)
    assert store.get("aaaa", 1) is None
    assert list(store.rows("aaaa")) == []


def test_a_newer_partition_replaces_everything_and_an_older_one_nothing(store: OnlineStore) -> None:
    store.publish(of("2025-01-02"), [pack(1, 2, [2]), pack(2, 2, [2])])
    store.publish(of("2025-01-03"), [pack(1, 3, [3])])
    store.publish(of("2025-01-01", "bbbb"), [pack(1, 1, [1])])
    with pytest.raises(Conflict, match=r"2025-01-03.*2025-01-02 does not replace"):
        store.publish(of("2025-01-02"), [pack(1, 2, [2])])
    assert (store.get("aaaa", 1), store.get("aaaa", 2)) == ((3, [3]), None)
    assert store.get("bbbb", 1) == (1, [1])
    store.publish(of("2025-01-03"), [pack(1, 3, [33])])
    assert store.get("aaaa", 1) == (3, [33])


def test_a_writer_that_is_fenced_off_at_the_end_leaves_the_old_rows(store: OnlineStore) -> None:
    store.publish(of("2025-01-02"), [pack(1, 2, [2])])

    def fenced() -> None:
        raise Busy("superseded")

    with pytest.raises(Busy):
        store.publish(of("2025-01-03"), [pack(1, 3, [3])], check=fenced)
    assert (store.get("aaaa", 1), store.describe("aaaa")) == ((2, [2]), of("2025-01-02"))


def test_a_reader_sees_old_rows_until_the_end(store: OnlineStore, chosen: Settings) -> None:
    store.publish(of("2025-01-02"), [pack(1, 2, [2])])
    reader, seen = open_store(chosen, "shop"), []
    rows = [pack(number, 3, [3]) for number in range(2500)]
    store.publish(of("2025-01-03"), rows, check=lambda: seen.append(reader.get("aaaa", 1)))
    assert seen == [(2, [2])]
    assert reader.get("aaaa", 1) == (3, [3])
    assert reader.count("aaaa") == 2500
    reader.close()


def test_rows_come_in_order_with_one_digest(store: OnlineStore) -> None:
    rows = [pack(number, number, [number]) for number in (1, 10, 2, 30, 3)]
    rows.append(pack("é", 1, [None]))
    store.publish(SET, rows)
    assert list(store.rows("aaaa")) == sorted(rows, key=lambda row: row[0].encode())
    ordered = sorted(rows, key=lambda row: row[0].encode())
    assert rows_digest(store.rows("aaaa")) == rows_digest(ordered)


def test_shares_and_samples(store: OnlineStore) -> None:
    store.publish(SET, [pack(number, 0, [number]) for number in range(10)])
    store.publish(of("2025-01-01", "bbbb"), [pack(number, 0, [-number]) for number in range(5, 30)])
    assert store.shared("bbbb", "aaaa", since=EVER) == (25, 5)
    assert store.shared("aaaa", "cccc", since=EVER) == (10, 0)
    assert store.shared("cccc", "aaaa", since=EVER) == (0, 0)
    some = store.sample("aaaa", 3, since=0)
    assert len(some) == 3
    assert all(values[0] in range(10) for values in some)
    assert store.sample("cccc", 3, since=0) == []


def test_who_counts_as_alive_is_told_by_the_event_time(store: OnlineStore) -> None:
    store.publish(SET, [pack(number, number, [number]) for number in range(10)])
    store.publish(of("2025-01-01", "bbbb"), [pack(n, 10 - n, [n]) for n in range(10)])
    assert store.count("aaaa", since=7) == 3
    assert store.shared("aaaa", "bbbb", since=(6, 4)) == (4, 1)
    assert sorted(store.sample("aaaa", 5, since=8)) == [[8], [9]]


def test_sets_that_nobody_needs_are_removed_once_they_are_old(store: OnlineStore) -> None:
    before = SET.written - timedelta(days=7)
    assert store.remove_unneeded(set(), before=before) == []
    for name, days in (("needed", 30), ("old", 30), ("young", 1)):
        at = SET.written - timedelta(days=days)
        store.publish(dataclasses.replace(SET, feature_set=name, written=at), [pack(1, 0, [1.0])])
    assert store.get("old", 1) is not None
    assert store.remove_unneeded({"needed"}, before=before) == ["old"]
    assert (store.describe("old"), store.get("old", 1), store.count("old")) == (None, None, 0)
    assert store.get("needed", 1) == store.get("young", 1) == (0, [1.0])
    assert store.remove_unneeded({"needed"}, before=before) == []


def test_nothing_online_reads_as_nothing_known(store: OnlineStore) -> None:
    assert store.get("aaaa", 1) is None
    assert store.describe("aaaa") is None
    assert (store.count("aaaa"), list(store.rows("aaaa"))) == (0, [])
    store.publish(SET, [pack(1, 2, [2])])
    assert store.get("aaaa", 1) == (2, [2])


def test_removed_is_removed_for_one_use_case_alone(store: OnlineStore, chosen: Settings) -> None:
    other = open_store(chosen, "shop2")
    for opened in (store, other):
        opened.publish(SET, [pack(1, 2, [2])])
    store.publish(of("2025-01-01", "bbbb"), [])
    assert store.remove() == 2
    assert (store.remove(), store.describe("aaaa")) == (0, None)
    assert other.get("aaaa", 1) == (2, [2])
    store.publish(of("2024-01-01"), [pack(1, 1, [1])])
    assert store.get("aaaa", 1) == (1, [1]), "no watermark is left of before"
    other.close()


def test_two_installations_do_not_see_each_other(store: OnlineStore, tmp_path: Path) -> None:
    url = SecretStr(redis_server.URL)
    homes = [Settings(home=tmp_path / name, online_url=url) for name in ("a", "b")]
    assert len({settings.online_keys for settings in homes}) == 2
    assert len({open_store(settings, "shop").where for settings in homes}) == 2


@pytest.mark.parametrize("url", ["http://host", "127.0.0.1:6379", "redis://h:port/0"])
def test_an_address_that_is_none_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    settings = Settings(home=tmp_path, online_url=SecretStr(url.replace("//", "//:hunter2@")))
    with pytest.raises(ConfigError, match="EVERGREEN_ONLINE_URL") as refused:
        open_store(settings, "shop")
    assert "hunter2" not in str(refused.value)


def test_a_store_that_does_not_answer_is_not_empty(tmp_path: Path) -> None:
    url = SecretStr("redis://:hunter2@127.0.0.1:1/0")
    away = open_store(Settings(home=tmp_path, online_url=url), "shop")
    for ask in (
        lambda: away.get("aaaa", 1),
        lambda: away.describe("aaaa"),
        lambda: list(away.rows("aaaa")),
        lambda: away.publish(SET, []),
        away.remove,
    ):
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1.*check that it runs") as refused:
            ask()
        assert "hunter2" not in str(refused.value)
