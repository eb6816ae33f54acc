"""The model of a use case: training, gates, decisions, and how it is watched and served."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from include.config.durations import SIZE, Duration, size_bytes
from include.config.names import ColumnName
from include.config.use_case_sources import Share, Strict


class Split(Strict):
    """How the rows of a training are divided."""

    by: Literal["auto", "time", "hash"] = Field(
        default="auto",
        description="time: the newest decisions are evaluated. hash: a share of the entities, for "
        "data without a time. auto: hash where all decisions have one moment, else time.",
    )
    tune: Share = Field(
        default=0.2,
        description="Share of the rows by which the number of trees and the calibration are found.",
    )
    evaluation: Share = Field(
        default=0.2, description="Share of the rows on which a candidate is judged, never trained."
    )


class Training(Strict):
    """What is trained, on what."""

    exclude: list[ColumnName] = Field(
        default_factory=list,
        description="Features that are stored but not trained on: protected ones, and columns that "
        "were written after the outcome.",
    )
    known_at_decision: list[ColumnName] = Field(
        default_factory=list,
        description="Features of which you know that they are known at the decision: what the leak "
        "gate finds of their presence, ranges, pairs and weight is then a question in the report, "
        "no refusal.",
    )
    window: Duration | None = Field(
        default=None,
        description="How far before as_of decisions are used; shorten it where old ones no longer "
        "resemble new ones. Left out: all.",
    )
    embargo: Duration | None = Field(
        default=None,
        description="How long before the evaluation part decisions belong to no part, so that a "
        "model is as old when judged as when it serves. Left out: label.delay, but at most a tenth "
        "of their span.",
    )
    max_rows: int = Field(
        default=400_000,
        ge=100,
        description="Most rows of a training; of more a sample is drawn. Raise it where memory and "
        "time allow.",
    )
    split: Split = Field(
        default=Split(), description="How rows become train, tune and evaluation part."
    )
    rounds: int = Field(
        default=300, ge=1, description="Most trees of a model; fewer where more do not help."
    )
    early_stopping: int = Field(
        default=30,
        ge=1,
        description="Trees without a better result on the tune part after which fitting stops.",
    )
    params: dict[str, float | int | str | bool] = Field(
        default_factory=dict,
        description="LightGBM's own parameters, such as learning_rate or num_leaves, where its "
        "defaults do not do.",
    )
    seed: int = Field(
        default=7, description="Seed of all chance in training: splits, samples and LightGBM."
    )


class Gates(Strict):
    """What a candidate must reach; a missing number or NaN is a hold."""

    min_rows: int = Field(
        default=500,
        ge=1,
        description="Least rows of each class in the evaluation part; with fewer it holds.",
    )
    min_auc: float = Field(default=0.6, ge=0, le=1, description="Least AUC of a candidate.")
    max_calibration_error: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Greatest mean gap between score and outcome, above what chance gives on so "
        "many rows.",
    )
    over_baseline: float = Field(
        default=0.0,
        description="How far the candidate's AUC must be above that of a logistic regression on "
        "the same rows.",
    )
    margin: float = Field(
        default=0.01,
        ge=0,
        description="Loss of AUC against the model that serves (the opponent) that is tolerated.",
    )
    max_feature_auc: float = Field(
        default=0.98,
        ge=0.5,
        le=1,
        description="AUC above which a single feature is refused as a leak, before training.",
    )
    max_auc: float = Field(
        default=0.98,
        ge=0.5,
        le=1,
        description="AUC above which a model is held, since that is too good to be true.",
    )


class Fallback(Strict):
    """What the node does where it has no, or only stale, features."""

    unknown: Literal["refuse", "score"] = Field(
        default="refuse",
        description="An entity without features. refuse: 404. score: with every feature null, and "
        "the answer says so.",
    )
    stale: Literal["refuse", "score"] = Field(
        default="refuse",
        description="Features older than their ttl. refuse: 409. score: with those null, and the "
        "answer says so.",
    )
    store: Literal["refuse", "score"] = Field(
        default="refuse",
        description="The store of online features does not answer. refuse: 503, to be tried again. "
        "score: with every feature null that was not sent, and the answer says so.",
    )


class Online(Strict):
    """Where the newest features can be asked for, beside the node's own rows."""

    feast: bool = Field(
        default=False,
        description="Write Feast's online table too, for clients of Feast, at about 40,000 values "
        "a CPU second. The serving node reads its own rows.",
    )


class Decision(Strict):
    """How a score becomes a decision."""

    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Score (probability of class 1) that divides the two."
    )
    at_or_above: str = Field(
        default="accept", description="Decision of a score at or above the threshold."
    )
    below: str = Field(default="refer", description="Decision of a score below the threshold.")


class Log(Strict):
    """The prediction log: one line an answer, and one a request that no model could answer."""

    retention: Duration = Field(
        default=timedelta(days=400),
        description="How long lines are kept, by whole days; keep them until outcomes are known.",
    )
    when_full: Literal["stop", "flag"] = Field(
        default="stop",
        description="Free disk below `floor`. stop: 503, for this use case alone. flag: answered "
        "without a line, and the answer says so (`unlogged`).",
    )
    floor: str = Field(
        default="500MB",
        pattern=SIZE,
        description="Least free disk for the log, such as 2GB; the node warns from twice as much.",
    )

    @field_validator("retention")
    @classmethod
    def _at_least_a_day(cls, value: timedelta) -> timedelta:
        if value < timedelta(days=1):
            raise ValueError("retention is by whole days; write 1d or more")
        return value

    @property
    def floor_bytes(self) -> int:
        """The floor in bytes."""
        return size_bytes(self.floor)


class Retention(Strict):
    """How much is kept that nothing needs any more; `evergreen gc` removes the rest."""

    models: int = Field(
        default=30,
        ge=1,
        description="How many of the newest models keep their files, beside those that serve, "
        "could serve again, are on hold or were judged against.",
    )


class Monitoring(Strict):
    """Limits of the drift check."""

    psi: float = Field(
        default=0.2,
        gt=0,
        description="Population stability index (no unit) above which a feature has drifted; 0.1 "
        "is a small shift, 0.25 a great one.",
    )
    sample: int = Field(
        default=20_000,
        ge=100,
        description="Most rows of features that training keeps with a model, as the reference that "
        "later partitions are compared with.",
    )
    report_rows: int = Field(
        default=5_000,
        ge=100,
        description="Most rows of each side that the drift report draws; the verdict uses all.",
    )


class Wait(Strict):
    """How long a stage waits for partitions that are coming."""

    transit: Duration = Field(
        default=timedelta(minutes=10),
        description="How long after a stage has ended its successor may take to start; raise it "
        "where Airflow's queue is long.",
    )
    deadline: Duration = Field(
        default=timedelta(hours=6),
        description="How long a stage waits for earlier partitions, or tries again what it could "
        "not read, before a person is needed.",
    )
