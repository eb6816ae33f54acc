"""Whatever table of the records is emptied, who answers goes on answering."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from sqlalchemy import text

from include.errors import Conflict
from include.records.columns import Base
from include.serving import row_source
from include.serving.reconciler import Reconciler
from tests.builders.application import Client
from tests.builders.serving import NAME, Desk

pytestmark = pytest.mark.anyio


async def test_no_emptied_table_takes_an_answer_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_source, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(row_source, "POLL_SECONDS", 0.05)
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    app = Client(desk).app
    reconciler = Reconciler(desk.settings, app, node="here")
    task = asyncio.create_task(reconciler.run())

    def answering() -> int | None:
        served = app.table.served.get(NAME)
        return served.answering.version if served and served.answering else None

    try:
        async with asyncio.timeout(60):
            while answering() != 2:
                await asyncio.sleep(0.02)
        for name in [*Base.metadata.tables, "evergreen_version"]:
            # The audit log refuses to be emptied; its row is the one that tells of a reset.
            with contextlib.suppress(Conflict), desk.records.transaction() as session:
                session.execute(text(f"DELETE FROM {name}"))
            looks = reconciler._source.looks
            async with asyncio.timeout(60):
                while reconciler._source.looks < looks + 2:
                    assert answering() == 2, name
                    await asyncio.sleep(0.02)
        assert app.table.healthy
    finally:
        task.cancel()
        await reconciler.close()
