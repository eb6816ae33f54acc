"""A release of a use case at a node of the tests: its rows, and its course in the records."""

from __future__ import annotations

from typing import Any

from include.clock import utc_now
from include.deployment.release_plan import PlannedStep, ReleasePlan
from include.records.records import AuditEntry, Release
from tests.builders.serving import NAME, Desk


def plan_of(*shares: int, **changes: Any) -> ReleasePlan:
    """Return a plan of steps with these shares, in basis points, that end as soon as they may."""
    steps = [
        PlannedStep(share=share, bake=0.0, requests=1, entities=1, deadline=3600.0)
        for share in shares
    ]
    return ReleasePlan(kind="canary" if steps else "direct", steps=steps, **changes)


class Releasing:
    """Takes a release through its states, as whoever judges does, and beats."""

    def __init__(self, desk: Desk, version: int, *shares: int, **plan: Any) -> None:
        """Request it: the model is trained, and the champion serves."""
        self._desk, self._records = desk, desk.records
        route, model = self._records.routes.get(NAME), self._records.models.get(NAME, version)
        assert model is not None
        self.release: Release = self._records.releases.request(
            NAME,
            partition=model.partition,
            model=model,
            opponent=route.champion,
            judged_generation=route.generation,
            plan=plan_of(*shares, **plan).plain(),
            description=None,
            entry=self._entry("request"),
        )

    def begin(self) -> None:
        """Begin the first step."""
        self.release = self._records.releases.begin(self.release, self._entry("begin"))

    def advance(self) -> None:
        """Go on to the next step."""
        self.release = self._records.releases.advance(
            self.release, {"word": "pass"}, self._entry("advance")
        )

    def beat(self, seconds: float = 60.0) -> int:
        """Give a sign of life."""
        return self._records.releases.beat(NAME, self.release.id, seconds)

    def suspend(self) -> None:
        """Give all traffic to the champion for now."""
        self.release = self._records.releases.suspend(self.release, self._entry("suspend"))

    def resume(self) -> None:
        """Go on with the step that was suspended."""
        self.release = self._records.releases.resume(self.release, 0.0, self._entry("resume"))

    def promote(self) -> None:
        """Make the challenger champion."""
        self.release = self._records.releases.promote(self.release, self._entry("promote"), None)

    def abort(self) -> None:
        """End it with the champion answering."""
        self.release = self._records.releases.abort(self.release, "asked", self._entry("abort"))

    def roll_back(self) -> None:
        """End it, as its model is bad."""
        self.release = self._records.releases.roll_back(
            self.release, "bad", self._entry("roll_back")
        )

    def _entry(self, action: str) -> AuditEntry:
        return AuditEntry(f"release.{action}", NAME, self._about, "test", {}, utc_now())

    @property
    def _about(self) -> str:
        return getattr(getattr(self, "release", None), "id", "new")
