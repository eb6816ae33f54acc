"""What a node does of a release beside its requests: count, write, look after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from include.config.settings import Settings
from include.records.records import Records
from include.serving.app import App
from include.serving.guard import LOOK_SECONDS, Guard, Latch, LatchFile
from include.serving.window_file import WindowFile
from include.serving.window_rows import WindowRows
from include.serving.workers import Workers


class ReleaseLoops:
    """The loops of one start of a node; `guard` tells what it gives nothing any more."""

    def __init__(
        self,
        settings: Settings,
        app: App,
        records: Records,
        workers: Workers,
        *,
        node: str,
        boot: str,
    ) -> None:
        self._app, self._records, self._node, self._boot = app, records, node, boot
        self._run = partial(workers.run, "evidence")
        folder, port = settings.home / "serving", settings.node_port
        self.guard = Guard(LatchFile(folder / f"guards-{port}.json"))
        self.rows = WindowRows(
            app.evidence,
            app.table,
            app.log,
            WindowFile(folder / f"windows-{port}.json", settings.home),
            node=node,
            boot=boot,
            prefix=app.id_prefix,
            put=records.releases.put_windows,
            run=self._run,
            settle=app.shadow.put_lines,
        )
        app.evidence.observers.append(self.guard.observe)

    def loops(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return the turns of the loops, by name."""
        return {
            "evidence": self._app.evidence.turn,
            "shadow": self._app.shadow.turn,
            "windows": self.rows.turn,
            "guard": self._guard_turn,
            "latches": partial(self.guard.keep, self._run, self._tell),
        }

    async def _guard_turn(self) -> None:
        """Look, show what is latched, and wait for the next look."""
        self.guard.look(self._app.table.served)
        for name, served in self._app.table.served.items():
            release = served.release
            is_latched = release is not None and bool(self.guard.why(name, release.id))
            self._app.metrics.show_guard(name, latched=is_latched)
        await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Write what is counted; this start has ended in order."""
        await self.rows.close()

    def _tell(self, latch: Latch) -> None:
        self._records.releases.latch(
            latch.use_case, latch.release, self._node, self._boot, latch.reason
        )
