"""Killed while it materializes: online rows are the old or the new ones, and the watermark never
runs ahead of them.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.features.online_reader import OnlineReader
from include.features.online_rows import rows_digest
from include.pipeline import runner
from tests.builders.shop import DAY, HOUR, T0, YAML, Shop
from tests.faults import kill

CUSTOMERS, ROUNDS = 1100, 20
PRELOAD = [
    *kill.PRELOAD,
    "feast",
    "include.features.feast_offline_store",
    "include.features.feast_online_store",
    "include.features.online_sync",
]


def materialize(home: str, key: str, owner: str) -> None:
    """Child: run the stage for a live partition."""
    settings = Settings(home=Path(home), usecases=f"{home}/usecases", lease_seconds=2.0)
    runner.run("materialize_features", "shop", key, settings=settings, owner=owner, wait=10)


@pytest.mark.slow
def test_killed_at_twenty_moments_online_rows_are_old_or_new(tmp_path: Path) -> None:
    """Fault 2: every customer's `pages` says the day, so rows of two days among them would be a
    mix.
    """
    shop = Shop(tmp_path, YAML + "online: {feast: true}\n", lease_seconds=2.0)
    for day in range(ROUNDS + 1):
        moment = T0 + day * DAY + HOUR
        visits = [(customer, day, "web", moment, moment) for customer in range(CUSTOMERS)]
        shop.arrive(day, [(day, 1, 1.0, moment, moment)], visits)
        shop.run(day)
        shop.ask(day, "live")
    context = kill.context(PRELOAD)
    child = context.Process(target=materialize, args=(str(tmp_path), shop.key(0), "warm"))
    child.start()
    child.join(120)
    child = context.Process(target=materialize, args=(str(tmp_path), shop.key(1), "timed"))
    child.start()
    longest = kill.timed(child)
    assert_whole(shop)
    killed = 0
    for number, wait in enumerate(kill.moments(ROUNDS - 1, longest * 1.2)):
        child = context.Process(
            target=materialize, args=(str(tmp_path), shop.key(number + 2), f"try-{number}")
        )
        child.start()
        how = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
        killed += kill.kill_after(child, wait, how)
        assert_whole(shop)
    assert killed >= 3
    materialize(str(tmp_path), shop.key(ROUNDS), f"last {os.getpid()}")
    assert assert_whole(shop) == (ROUNDS, ROUNDS, shop.key(ROUNDS))
    assert shop.records.audit.verify() is None


def assert_whole(shop: Shop) -> tuple[int, int, str | None]:
    """Check that packed and Feast's rows are each of one day; return both days and the recorded
    watermark.
    """
    version = shop.feature_set.version
    reader = OnlineReader(shop.settings.home / "online" / "shop.db")
    there = reader.describe(version)
    assert there is not None
    rows = list(reader.rows(version))
    assert rows_digest(rows) == there.digest
    packed = {
        found[1][3] for customer in range(CUSTOMERS) if (found := reader.get(version, customer))
    }
    reader.close()
    with closing(sqlite3.connect(shop.settings.home / "feast" / "online.db")) as con:
        query = (
            "SELECT DISTINCT hex(value) FROM \"evergreen_shop__visit\" WHERE feature_name = 'pages'"
        )
        (feast,) = {int(value[2:] or "0", 16) for (value,) in con.execute(query)}
    watermark = shop.records.feature_sets.online("shop", version)
    (day,) = packed
    assert there.partition == shop.key(int(day or 0))
    assert watermark is None or watermark <= there.partition
    return int(day or 0), feast, watermark
