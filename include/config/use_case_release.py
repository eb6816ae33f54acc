"""How a model is released: online features, steps of traffic, and by what the steps are judged."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from include.config.durations import Duration, format_duration
from include.config.use_case_columns import Share, Strict

LONGEST = timedelta(days=366)  # of a step, or of anything else in a release: it is waited for
LONGEST_ANSWER = 60_000.0  # milliseconds; a number without end would be no number in the records
_Part = TypeVar("_Part", bound=Strict)


def _within_reach(name: str, value: timedelta) -> None:
    """Refuse a time that nobody waits for; of some the end would lie beyond the calendar."""
    if value > LONGEST:
        raise ValueError(f"{name} is at most {format_duration(LONGEST)}, not {value.days}d")


def _switched(value: Any) -> Any:
    """Return None for what is switched off; nothing written after a name is no such wish."""
    if value is None:
        raise ValueError("there is nothing after it; write false to switch it off")
    return None if value is False else value


class _MaybeOff:
    """Lets `false` stand for a part, in files and in their JSON schema."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_switched, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        choices = handler(schema)["anyOf"]
        return {"anyOf": [*choices[:-1], {"const": False, "type": "boolean"}]}


Switched = Annotated[_Part | None, _MaybeOff()]
"""A part that may be switched off: `errors: false`, which YAML's `off` is too."""


class ReleaseStep(Strict):
    """A step of a release: how much of the traffic, for how long, and on how much it is judged."""

    share: float = Field(
        ge=0,
        lt=100,
        multiple_of=0.01,
        description="Percent of the entities that the challenger answers. 0: the shadow step, all "
        "requests are mirrored to it and none of its answers is returned.",
    )
    bake: Duration = Field(
        default=timedelta(minutes=30), description="Least time that the step lasts."
    )
    requests: int = Field(
        default=500,
        ge=1,
        le=10**9,
        description="Least requests of the challenger before the step may end.",
    )
    entities: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Least entities among them: a hundred requests of one are no evidence.",
    )
    deadline: Duration = Field(
        default=timedelta(days=1),
        description="Longest time that the step lasts; a release that is on hold then is aborted.",
    )

    @model_validator(mode="after")
    def _in_time(self) -> ReleaseStep:
        if not self.deadline:
            raise ValueError(
                "deadline is 0s, so that the step could never pass; leave it out for 1d"
            )
        _within_reach("deadline", self.deadline)
        if self.bake > self.deadline:
            raise ValueError(
                f"bake ({format_duration(self.bake)}) is longer than the deadline "
                f"({format_duration(self.deadline)}), so that the step could never pass"
            )
        return self


class RateRule(Strict):
    """By what a share of the answers is judged."""

    margin: Share = Field(
        default=0.001,
        description="How much more than the champion's share is tolerated, as a part of 1.",
    )
    limit: Share = Field(
        default=0.02,
        description="Greatest share where there is no champion to compare with: while the release "
        "is watched, or when the champion is above it itself.",
    )


class InvalidRule(RateRule):
    """By what the share of unusable scores is judged."""

    limit: Share = Field(default=0.01, description="As the limit of errors.")


class SlowRule(RateRule):
    """By what the share of slow answers is judged."""

    margin: Share = Field(default=0.005, description="As the margin of errors.")
    limit: Share = Field(default=0.05, description="As the limit of errors.")
    milliseconds: float = Field(
        default=50,
        gt=0,
        le=LONGEST_ANSWER,
        description="The model's own time from which an answer is slow; the way to it not counted.",
    )


class ScoreRule(Strict):
    """By what the shift of scores is judged."""

    margin: float = Field(
        default=0.08,
        ge=0,
        le=10,
        description="Shift of the mean score that is tolerated, either way, in standard deviations "
        "of the champion's scores.",
    )


class DecisionRule(Strict):
    """By what the share of answers at or above the threshold is judged."""

    margin: Share = Field(
        default=0.1, description="Difference that is tolerated, either way, as a part of 1."
    )


class AucRule(Strict):
    """By what the loss of AUC is judged."""

    margin: Share = Field(default=0.02, description="Loss that is tolerated.")


class LimitRule(Strict):
    """By what a share is judged that is compared with nothing."""

    limit: Share = Field(default=0.01, description="Greatest share that is tolerated.")


class ReleaseVerdict(Strict):
    """By what a step is judged; `false` in place of a rule switches it off."""

    errors: Switched[RateRule] = Field(
        default=RateRule(),
        description="Requests that the model failed: no answer, too late, no usable score.",
    )
    slow: Switched[SlowRule] = Field(
        default=SlowRule(), description="Answers that took the model long."
    )
    invalid: Switched[InvalidRule] = Field(
        default=InvalidRule(), description="Scores that are no number from 0 to 1."
    )
    scores: Switched[ScoreRule] = Field(
        default=ScoreRule(), description="How far the mean score has moved."
    )
    decisions: Switched[DecisionRule] = Field(
        default=DecisionRule(),
        description="How far the share of answers at or above the threshold has moved.",
    )
    parity: Switched[LimitRule] = Field(
        default=LimitRule(),
        description="Online rows whose features differ from the offline store's.",
    )
    lacks_feature: Switched[LimitRule] = Field(
        default=LimitRule(),
        description="Requests without a feature that only the challenger needs; above the limit "
        "the step is on hold, and the feature is named.",
    )
    auc: Switched[AucRule] = Field(
        default=AucRule(),
        description="Loss of AUC on answers of both models whose outcome is known by then.",
    )


class Slo(Strict):
    """What callers may expect of the use case; a release that burns it up is rolled back."""

    availability: float = Field(
        default=0.999, gt=0, lt=1, description="Least share of the requests that a model answers."
    )
    latency: float = Field(
        default=0.99, gt=0, lt=1, description="Least share of the answers within `milliseconds`."
    )
    milliseconds: float = Field(
        default=80,
        gt=0,
        le=LONGEST_ANSWER,
        description="Time within which a caller has the answer.",
    )


class Release(Strict):
    """How a model that has passed its gates comes to answer everybody."""

    online_share: Share = Field(
        default=0.95,
        description="Least share of the entities alive with online features for a new model.",
    )
    plan: Literal["canary", "shadow"] = Field(
        default="canary",
        description="canary: the steps, each after the one before has passed, then everybody. "
        "shadow: the shadow step alone, until a person promotes the model or its deadline.",
    )
    steps: list[ReleaseStep] = Field(
        default=[ReleaseStep(share=0), ReleaseStep(share=5), ReleaseStep(share=25)],
        max_length=20,
        description="The steps, the shadow step first. Left out: shadow, 5 and 25 percent. An "
        "empty list: promoted as soon as it was tried on a node, and then watched.",
    )
    pairs: float = Field(
        default=25,
        ge=0,
        le=100,
        multiple_of=0.01,
        description="Percent of the entities that both models score in a step with a share: the "
        "one that did not answer is asked behind the answer. Scores are compared by these pairs. "
        "0: by the requests of each model alone, which sees hardly anything.",
    )
    thin: Literal["replay", "hold"] = Field(
        default="replay",
        description="Where the traffic of a week shows that a step could not reach its minimum in "
        "time. replay: both models are asked for past requests, and the release is judged by "
        "these. hold: the steps are gone through all the same, and may end as aborted.",
    )
    newer: Literal["wait", "replace"] = Field(
        default="wait",
        description="A newer candidate while a release is under way. wait: until it has ended. "
        "replace: ends it.",
    )
    false_rollback: float = Field(
        default=0.05,
        ge=1e-6,
        le=0.5,
        description="Greatest chance that a model as good as the champion is rolled back, over all "
        "steps, metrics and looks together.",
    )
    min_nodes: int = Field(
        default=1, ge=1, le=1000, description="Least nodes that must report for a step to end."
    )
    resume: Duration = Field(
        default=timedelta(hours=1),
        description="How long a release may be without traffic because nobody judged it, or both "
        "models failed, and still go on; later it is aborted.",
    )
    watch: Duration = Field(
        default=timedelta(days=1),
        description="How long a model is watched after its promotion, and may be rolled back by "
        "itself. 0s: not at all.",
    )
    exclude: list[str | int] = Field(
        default=[],
        max_length=10_000,
        description="Keys of entities that stay with the champion until the promotion, as the type "
        "of the entity's key has them: text in quotes.",
    )
    beat: Duration = Field(
        default=timedelta(minutes=3),
        description="How long a node sends traffic to a challenger without a sign of who judges "
        "it; three signs are given in that time.",
    )
    verdict: ReleaseVerdict = Field(
        default=ReleaseVerdict(), description="By what a step is judged."
    )
    slo: Slo = Field(default=Slo(), description="What callers may expect of the use case.")

    @field_validator("beat")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=15):
            raise ValueError("beat is at least 15s: a sign every third of it must reach the nodes")
        if value > timedelta(hours=1):
            raise ValueError("beat is at most 1h: so long a challenger answers that nobody judges")
        return value

    @field_validator("exclude", mode="before")
    @classmethod
    def _no_switches(cls, value: Any) -> Any:
        """Refuse what YAML reads from NO, on or yes: it would be taken for the key 0 or 1."""
        if isinstance(value, list) and any(isinstance(key, bool) for key in value):
            raise ValueError("true or false is no key: YAML reads NO, on and yes so; write quotes")
        return value

    @model_validator(mode="after")
    def _in_reach(self) -> Release:
        """Refuse times beyond the calendar, and a judge who is away before he is missed."""
        _within_reach("watch", self.watch)
        _within_reach("resume", self.resume)
        if self.resume < self.beat:
            raise ValueError(
                f"resume ({format_duration(self.resume)}) is shorter than beat "
                f"({format_duration(self.beat)}), so that every release would be aborted between "
                "two signs of who judges it; write at least the beat"
            )
        return self

    @model_validator(mode="after")
    def _ascending(self) -> Release:
        """Refuse steps that go back, and a plan of a shadow step without one."""
        shares = [step.share for step in self.steps]
        for before, after in pairwise(shares):
            if after <= before:
                raise ValueError(
                    f"steps: {after:g} percent comes after {before:g}; shares ascend, and the "
                    "shadow step (share: 0) is the first"
                )
        if self.plan == "shadow" and (not shares or shares[0] != 0):
            raise ValueError(
                "plan: shadow needs the shadow step; write share: 0 as the first of steps"
            )
        return self
