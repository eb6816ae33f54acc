"""What a node says of each use case to the records: how far it is, role by role."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from include.records.records import Records, RoleReport, ServingRow
from include.serving.model_states import ModelStates
from include.serving.snapshot import Served
from include.serving.workers import Workers

BEAT_SECONDS = 20.0  # a third of what a report is believed (`nodes.EXPIRES_SECONDS`)
_LOOK_SECONDS = 1.0  # between two looks at whose sign of life is due
ROLES = ("champion", "previous", "challenger")
_STATES = {"refused": "refused", "could_not": "could_not"}


def role_reports(
    row: ServingRow, models: ModelStates, served: Served, withheld: str = ""
) -> list[RoleReport]:
    """Return how far the model of each role is that a routing row names.

    `withheld` is why the challenger of a release gets no traffic here.
    """
    now = asyncio.get_running_loop().time()
    reports = []
    for role in ROLES:
        version = getattr(row.route, role)
        if version is None:
            continue
        model, candidate = row.model(role), models.get(row.model(role))
        if model is None or candidate is None:
            reason = f"model {version} is not on record; roll back, or train again"
            reports.append(RoleReport(role, version, "", "refused", reason))
            continue
        state = _STATES.get(candidate.state, "loading")
        if (
            role == "champion"
            and served.champion is not None
            and served.champion.digest == model.model_digest
        ):
            state = "serving"
        elif candidate.alive is not None and (role != "challenger" or candidate.fit):
            state = "ready"
        wait = candidate.next_try - now if candidate.state == "could_not" else 0.0
        reason = candidate.reason
        if role == "challenger" and withheld:
            reason = _joined(reason, f"it gets no traffic here: {withheld}")
        reports.append(RoleReport(role, version, model.model_digest, state, reason, max(0.0, wait)))
    return reports


@dataclass(slots=True)
class _Due:
    generation: int
    reports: list[RoleReport]


class Reporter:
    """Writes reports in a loop of its own: no swap and no load ever waits for it."""

    def __init__(
        self,
        records: Records,
        workers: Workers,
        node: str,
        boot: str,
        *,
        note: Callable[[], str] = lambda: "",
    ) -> None:
        """Build it; `note` is what the node has to say of itself, beside each reason."""
        self._records, self._workers, self._node, self._boot = records, workers, node, boot
        self._note = note
        self._sources: dict[str, Callable[[], tuple[int, list[RoleReport]]]] = {}
        self._written: dict[str, tuple[_Key, float]] = {}
        self._news = asyncio.Event()

    def follow(self, use_case: str, source: Callable[[], tuple[int, list[RoleReport]]]) -> None:
        """Report of a use case from now on; `source` says what, whenever it is asked."""
        self._sources[use_case] = source
        self._news.set()

    def forget(self, use_case: str) -> None:
        """Report of a use case no more."""
        self._sources.pop(use_case, None)
        self._written.pop(use_case, None)

    def tell(self) -> None:
        """Say that something may have changed."""
        self._news.set()

    async def turn(self) -> None:
        """Write what is news, and the signs of life that are due; then wait for the next."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        for use_case, source in list(self._sources.items()):
            generation, reports = source()
            if note := self._note():
                reports = [replace(one, reason=_joined(one.reason, note)) for one in reports]
            key, now = _key(generation, reports), time.monotonic()
            known, at = self._written.get(use_case, (None, 0.0))
            if key == known and now < at + BEAT_SECONDS:
                continue
            await self._workers.run("report", self._write, use_case, generation, reports)
            if use_case in self._sources:
                self._written[use_case] = key, now

    def _write(self, use_case: str, generation: int, reports: list[RoleReport]) -> None:
        self._records.nodes.report(
            use_case, self._node, self._boot, generation=generation, roles=reports
        )

    async def stop(self) -> None:
        """Report that this node serves no more."""
        await self._workers.run("report", self._records.nodes.stopped, self._node, self._boot)


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


_Key = tuple[int, tuple[tuple[object, ...], ...]]


def _key(generation: int, reports: list[RoleReport]) -> _Key:
    # Without the seconds to the next try, which fall by themselves.
    return generation, tuple((one.role, one.version, one.state, one.reason) for one in reports)


def health_of_roles(reports: list[RoleReport]) -> Mapping[str, dict[str, object]]:
    """Return the same for the health page: by role, with the seconds to the next try."""
    return {
        one.role: {"version": one.version, "state": one.state}
        | ({"reason": one.reason} if one.reason else {})
        | ({"next_try_seconds": round(one.next_try, 1)} if one.next_try else {})
        for one in reports
    }
