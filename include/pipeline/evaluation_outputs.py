"""What `evaluate_model` leaves on record for later stages: verdict, checks, opponent."""

from __future__ import annotations

from typing import Literal, Self

import msgspec
from msgspec import UNSET, UnsetType

from include.pipeline.outputs import Outputs
from include.pipeline.training_outputs import Counts, PartCount


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A question of the gate; `passed` is None on a hold. Digests are over `id`, never over prose.

    `id` is missing on records that are older than ids. `remedy` says what a person can write into
    the use case, and what it would mean.
    """

    id: str = ""
    name: str
    value: int | float | None
    limit: int | float | None
    passed: bool | None
    reason: str = ""
    remedy: str = ""

    @property
    def outcome(self) -> Literal["pass", "fail", "hold"]:
        """The answer in a word."""
        if self.passed is None:
            return "hold"
        return "pass" if self.passed else "fail"


class JudgedCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a training on which a verdict rests; of a judgement not reached there are none.

    Names mean what they mean in `Counts`.
    """

    evaluation: PartCount | UnsetType | None = UNSET
    decisions: int | UnsetType | None = UNSET
    decisions_judged: int | UnsetType | None = UNSET
    immature: int | UnsetType | None = UNSET
    embargoed: int | UnsetType | None = UNSET
    censored: int | UnsetType | None = UNSET
    censored_judged: int | UnsetType | None = UNSET
    censored_share: float | UnsetType | None = UNSET
    censored_share_judged: float | UnsetType | None = UNSET
    restated: int | UnsetType | None = UNSET
    restated_judged: int | UnsetType | None = UNSET
    restated_share: float | UnsetType | None = UNSET
    restated_share_judged: float | UnsetType | None = UNSET

    @classmethod
    def of(cls, counts: Counts) -> Self:
        """Return those of a training's counts."""
        return cls(**{name: getattr(counts, name) for name in cls.__struct_fields__})


class EvaluationOutputs(Outputs, frozen=True, kw_only=True):
    """What `evaluate_model` leaves: the verdict, and whom and what it is about.

    `opponent` is the version against which `version` was judged, under the routing row's
    `generation`; of the evaluation rows `compared` were asked of both, and `left_out` were not,
    since the opponent had seen them. `error` is set where something could not be read. `report` is
    where people find the report, `report_uri` its address in the store.
    """

    verdict: Literal["pass", "fail", "hold"] = "hold"
    reasons: list[str] = []
    error: str | UnsetType = UNSET
    checks: list[Check] | UnsetType = UNSET
    version: int | UnsetType | None = UNSET
    model_digest: str | UnsetType | None = UNSET
    opponent: int | UnsetType | None = UNSET
    generation: int | UnsetType | None = UNSET
    metrics: dict[str, float | None] | UnsetType = UNSET
    counts: JudgedCounts | UnsetType = UNSET
    compared: int | UnsetType | None = UNSET
    left_out: int | UnsetType | None = UNSET
    report: str | UnsetType = UNSET
    report_uri: str | UnsetType = UNSET
