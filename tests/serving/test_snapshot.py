"""What a node reads of the online store, and when it reads it again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from include.serving.snapshot import Online
from tests.builders.serving import FEATURE_SET, NAME, NOW, ROW, Desk

pytestmark = pytest.mark.anyio


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def online(desk: Desk) -> Iterator[Online]:
    online = Online(desk.settings.home / "online" / f"{NAME}.db")
    yield online
    online.close()


def test_a_store_that_is_not_there_yet_knows_nothing(desk: Desk, online: Online) -> None:
    assert online.describe(FEATURE_SET) is None
    assert online.get(FEATURE_SET, "1") is None
    desk.publish({1: (NOW, ROW)})
    online.refresh()
    assert online.get(FEATURE_SET, "1") == (NOW.timestamp() * 1e6, list(ROW.values()))


def test_a_feature_set_is_described_anew_after_a_refresh(desk: Desk, online: Online) -> None:
    for days in (35, 7):
        desk.publish({1: (NOW, ROW)}, ttl=timedelta(days=days))
        described = online.describe(FEATURE_SET)
        assert described is not None
        assert described.ttl == timedelta(days=35)
    online.refresh()
    described = online.describe(FEATURE_SET)
    assert described is not None
    assert described.ttl == timedelta(days=7)


async def test_reads_share_a_state_for_a_moment_and_a_refresh_ends_it(
    desk: Desk, online: Online
) -> None:
    desk.publish({1: (NOW, ROW)})
    online.hold()
    assert online.get(FEATURE_SET, "2") is None
    desk.publish({2: (NOW, ROW)}, ttl=timedelta(days=7))  # no turn of the loop ends the state
    assert online.get(FEATURE_SET, "2") is None
    online.refresh()  # what is described next stays: it must not be of the old state
    described = online.describe(FEATURE_SET)
    assert described is not None
    assert described.ttl == timedelta(days=7)
    online.hold()
    await asyncio.to_thread(desk.publish, {3: (NOW, ROW)})
    async with asyncio.timeout(60):
        while online.get(FEATURE_SET, "3") is None:
            await asyncio.sleep(0.001)


def test_a_store_that_was_replaced_is_opened_again(desk: Desk, online: Online) -> None:
    desk.publish({1: (NOW, ROW)})
    online.refresh()
    assert online.get(FEATURE_SET, "1") is not None
    for path in (desk.settings.home / "online").iterdir():
        path.unlink()
    desk.publish({2: (NOW, ROW)})
    online.refresh()
    assert online.get(FEATURE_SET, "1") is None
    assert online.get(FEATURE_SET, "2") is not None
