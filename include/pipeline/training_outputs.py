"""What `train_model` leaves on record: in its result, and with the model as its manifest."""

from __future__ import annotations

from typing import Any, Literal, Protocol, Self

import msgspec
from msgspec import UNSET, UnsetType

from include.pipeline.outputs import Outputs, optional


class HasManifest(Protocol):
    """A model on record, or one that is about to be."""

    @property
    def manifest(self) -> Any: ...


class TrainingSet(msgspec.Struct, frozen=True, kw_only=True):
    """The exact rows of a training, at a version of the lake's table."""

    table: str
    digest: str
    table_version: int
    rows: int


class PartCount(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a part (train, tune or evaluation), and those of outcome 1 among them."""

    rows: int
    positive: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the decisions that a training could use; None: not recorded at the time.

    `mature` have a known outcome, `used` are in a part, `embargoed` and `immature` in none.
    `decisions` are those past the label's delay; of them some are `censored` (without an outcome)
    or `restated` (with a later one). Names that end in `judged` count the evaluation's alone.
    """

    train: PartCount | None = None
    tune: PartCount | None = None
    evaluation: PartCount | None = None
    mature: int | None = None
    used: int | None = None
    embargoed: int | None = None
    immature: int | None = None
    decisions: int | None = None
    decisions_judged: int | None = None
    censored: int | None = None
    censored_judged: int | None = None
    censored_share: float | None = None
    censored_share_judged: float | None = None
    restated: int | None = None
    restated_judged: int | None = None
    restated_share: float | None = None
    restated_share_judged: float | None = None


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The boundaries of the parts (ISO 8601, by time only), and two ages in seconds.

    The gaps say how much older the newest trained decision is than the first that is judged, and
    than what is served from as_of on.
    """

    by: str
    tune_from: str | None = None
    evaluation_from: str | None = None
    gap_when_judged: float | None = None
    gap_when_serving: float | None = None


class LeakFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Features that look wrong: `kind`, `level` and `columns` are stable, the rest is prose."""

    kind: str
    level: Literal["refusal", "question"]
    columns: list[str]
    evidence: str
    remedy: str


class Leaks(msgspec.Struct, frozen=True, kw_only=True):
    """What the leak gate came to.

    `gains` is the AUC that a small model loses without a feature, `random_auc` the one that it has
    on entities which it has not seen, and `carriers` the features that tell the most.
    """

    found: list[LeakFinding] = []
    gains: dict[str, float | None] = {}
    random_auc: float | None = None
    carriers: list[str] = []


class ReferenceSample(msgspec.Struct, frozen=True, kw_only=True):
    """The sample of all entities' features that later partitions are compared with.

    `uri` is its address in the store; versions before recorded a path of their machine.
    """

    uri: str | UnsetType = UNSET
    path: str | UnsetType = UNSET
    rows: int
    entities: int | UnsetType = UNSET
    as_of: str | UnsetType = UNSET


# The parts of a training's outputs on which the verdict rests.
JUDGED = ("counts", "split", "metrics", "feature_auc", "leaks")


class TrainingOutputs(Outputs, frozen=True, kw_only=True):
    """What `train_model` leaves; without a candidate `reason` says why, and few are set.

    `candidate` and `version` are the same number. A metric that was not computable is None.
    `weights` is the share of each feature in the gain of the model's splits.
    """

    candidate: int | None = None
    reason: str | UnsetType = UNSET
    version: int | UnsetType = UNSET
    run_id: str | UnsetType = UNSET
    model_digest: str | UnsetType = UNSET
    feature_set: str | UnsetType = UNSET
    bundle: str | UnsetType = UNSET
    bundle_uri: str | UnsetType = UNSET
    reference: ReferenceSample | UnsetType = UNSET
    training_set: TrainingSet | UnsetType = UNSET
    counts: Counts = Counts()
    split: Split | UnsetType = UNSET
    metrics: dict[str, float | None] | UnsetType = UNSET
    feature_auc: dict[str, float | None] | UnsetType = UNSET
    leaks: Leaks | UnsetType = UNSET
    weights: dict[str, float] | UnsetType = UNSET

    @property
    def model_version(self) -> int | None:
        """The version that was registered; None: there is no candidate."""
        return optional(self.version)


class Manifest(Outputs, frozen=True, kw_only=True):
    """How a model came to be: what is recorded with it and logged to MLflow.

    None, or empty: not recorded at the time. `tables` has the version of each lake table that was
    read, `lock` the digest of the locked dependencies.
    """

    use_case: str = ""
    partition: str = ""
    as_of: str | None = None
    mode: str = ""
    training_set: TrainingSet | None = None
    tables: dict[str, int | None] = {}
    feature_set: dict[str, Any] = {}
    split: Split | None = None
    counts: Counts = Counts()
    rounds: int | None = None
    params: dict[str, Any] = {}
    metrics: dict[str, float | None] = {}
    git_commit: str | None = None
    lock: str | None = None
    libraries: dict[str, str] = {}
    feature_auc: dict[str, float | None] = {}
    leaks: Leaks = Leaks()
    generation: int | None = None
    reference: ReferenceSample | None = None

    @classmethod
    def of_model(cls, model: HasManifest) -> Self:
        """Return the manifest of a model on record.

        Raises:
            ArtefactError: it has another form; the partition must be trained again.
        """
        return cls._read(model.manifest)
