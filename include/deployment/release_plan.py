"""What a release does, as it was decided at its start: recorded with it, read from there.

Nothing heavy is imported here: nodes read it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from include.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.config.use_case import UseCase
    from include.config.use_case_release import Release, ReleaseVerdict

Mode = Literal["shadow", "canary"]
DAY = 86_400.0
PAIRS_OF_ONE = 4  # requests of an entity that are paired in a step with a share, at each node


class PlannedStep(msgspec.Struct, frozen=True):
    """A step: its share in basis points, its times in seconds, the minimum of its evidence."""

    share: int
    bake: float
    requests: int
    entities: int
    deadline: float

    @property
    def mode(self) -> Mode:
        """How the challenger is asked: beside the champion, or in its place."""
        return "canary" if self.share else "shadow"

    @property
    def part(self) -> float:
        """The part of the requests that the challenger is asked: in a shadow step all."""
        return self.share / 10_000 if self.share else 1.0


class Rule(msgspec.Struct, frozen=True):
    """By what a metric is judged; what the metric does not have is None."""

    margin: float | None = None
    limit: float | None = None
    milliseconds: float | None = None


class Objective(msgspec.Struct, frozen=True):
    """What callers may expect: the shares of good and of quick answers."""

    availability: float = 0.999
    latency: float = 0.99
    milliseconds: float = 80.0


class ReleasePlan(msgspec.Struct, frozen=True):
    """The plan of a release; times are in seconds.

    `pairs` is the share of the entities, in basis points, that both models score in a step with a
    share of its own; plans of before this was a field had a tenth mirrored.

    `thin` says that its traffic was found to be too little, at the start and for all of it; what is
    done then is `when_thin`: replay or hold. `exclude` names entities as the prediction log does,
    in plans of versions before by their own keys. `probation` is for how long after the promotion
    the outcomes of its steps are still to come; None: it is not known. A plan of a later version is
    read without what this one does not know.
    """

    kind: Literal["canary", "direct", "shadow", "first"]
    steps: list[PlannedStep] = []
    pairs: int = 1_000
    metrics: dict[str, Rule] = {}
    slo: Objective = Objective()
    thin: bool = False
    when_thin: str = "replay"
    newer: str = "wait"
    false_rollback: float = 0.05
    min_nodes: int = 1
    resume: float = 3600.0
    watch: float = DAY
    beat: float = 180.0
    exclude: list[str] = []
    probation: float | None = None

    @classmethod
    def of(
        cls, use_case: UseCase, *, first: bool = False, name_of: Callable[[str], str] = str
    ) -> ReleasePlan:
        """Return the plan of a use case as its file has it now.

        `first` says that no champion is there: nothing to compare with, and nobody to protect from
        the candidate, which is promoted once it was tried. `name_of` names entities as the log of
        the use case does: a plan to be recorded must not tell who somebody is.
        """
        plan = cls.of_release(use_case.release, first=first)
        return msgspec.structs.replace(
            plan,
            exclude=[name_of(key) for key in plan.exclude],
            probation=use_case.label.delay.total_seconds(),
        )

    @classmethod
    def of_release(cls, release: Release, *, first: bool = False) -> ReleasePlan:
        """Return the plan of what a use case says of its releases."""
        steps = [
            PlannedStep(
                share=round(step.share * 100),
                bake=step.bake.total_seconds(),
                requests=step.requests,
                entities=step.entities,
                deadline=step.deadline.total_seconds(),
            )
            for step in release.steps
        ]
        kind: Literal["canary", "direct", "shadow", "first"] = "canary" if steps else "direct"
        if release.plan == "shadow":
            kind, steps = "shadow", steps[:1]
        if first:
            kind, steps = "first", []
        return cls(
            kind=kind,
            steps=steps,
            pairs=round(release.pairs * 100),
            metrics=_rules(release.verdict),
            slo=Objective(release.slo.availability, release.slo.latency, release.slo.milliseconds),
            when_thin=release.thin,
            newer=release.newer,
            false_rollback=release.false_rollback,
            min_nodes=release.min_nodes,
            resume=release.resume.total_seconds(),
            watch=release.watch.total_seconds(),
            beat=release.beat.total_seconds(),
            exclude=[str(key) for key in release.exclude],
        )

    @classmethod
    def read(cls, release: str, plain: object) -> ReleasePlan:
        """Return the plan that a row of a release holds.

        Raises:
            ConfigError: it is none that this version can read.
        """
        try:
            return msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"the plan of release {release} cannot be read ({error}); abort the release"
            ) from None

    def plain(self) -> dict[str, Any]:
        """Return it as a release's row keeps it."""
        builtins: dict[str, Any] = msgspec.to_builtins(self)
        return builtins

    def decided(self, requests_a_day: float, entities_a_day: float) -> ReleasePlan:
        """Return the plan with its decision whether the traffic is enough for it."""
        thin = is_thin(self, requests_a_day, entities_a_day)
        return msgspec.structs.replace(self, thin=thin)

    @property
    def replays(self) -> bool:
        """Whether it is judged by past requests, as there are too few to come."""
        return self.thin and self.when_thin == "replay"

    @property
    def slow_us(self) -> int:
        """The model's own time, in microseconds, from which an answer is slow."""
        rule = self.metrics.get("slow", Rule())
        return round((rule.milliseconds or self.slo.milliseconds) * 1000)

    def step(self, index: int) -> PlannedStep:
        """Return a step by its index.

        Raises:
            ConfigError: the plan has no such step.
        """
        if not 0 <= index < len(self.steps):
            raise ConfigError(f"a plan of {len(self.steps)} step(s) has no step {index}")
        return self.steps[index]


def is_thin(plan: ReleasePlan, requests_a_day: float, entities_a_day: float) -> bool:
    """Tell whether some step could not reach its minimum before its deadline.

    `entities_a_day` are the different ones of a day; those of the next day may be the same, so that
    a longer step has no more of them.
    """
    return any(
        requests_a_day * step.part * step.deadline / DAY < step.requests
        or entities_a_day * step.part * min(step.deadline / DAY, 1.0) < step.entities
        for step in plan.steps
    )


def _rules(verdict: ReleaseVerdict) -> dict[str, Rule]:
    """Return the metrics that are judged, those that are switched off left out."""
    parts = {name: getattr(verdict, name) for name in type(verdict).model_fields}
    return {
        name: Rule(**{field: float(value) for field, value in part})
        for name, part in parts.items()
        if part is not None
    }
