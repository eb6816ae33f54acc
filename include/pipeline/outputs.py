"""What each stage leaves on record for later ones: one frozen struct a stage.

A stage builds its struct and records `plain()` of it; whoever reads a result asks `of(result)`.
Fields that an earlier version did not record, or that only some partitions have, are `UNSET`:
they are left out of what is recorded, so a record is what it was. Unknown fields are passed over,
so an older version opens what a newer one wrote.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from include.errors import ArtefactError

T = TypeVar("T")


def optional(value: T | UnsetType | None) -> T | None:
    """Return a value; None: it was not recorded."""
    return None if value is UNSET else value


class Recorded(Protocol):
    """A result on record, or an outcome that is about to be."""

    @property
    def outputs(self) -> Any: ...


class HasManifest(Protocol):
    """A model on record, or one that is about to be."""

    @property
    def manifest(self) -> Any: ...


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of a stage."""

    @classmethod
    def of(cls, result: Recorded) -> Self:
        """Return a result's outputs.

        Raises:
            ArtefactError: what is recorded has another form; the stage must be run again.
        """
        return cls._read(result.outputs)

    @classmethod
    def _read(cls, recorded: Any) -> Self:
        try:
            return msgspec.convert(recorded, cls)
        except msgspec.ValidationError as error:
            raise ArtefactError(
                f"recorded outputs are none of {cls.__name__} ({error}); run the stage again"
            ) from error

    def plain(self) -> dict[str, Any]:
        """Return the outputs as they are recorded."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class FileHeader(msgspec.Struct, frozen=True, kw_only=True):
    """A header that files of a source had, with up to three of the files, and how many have it."""

    columns: list[str]
    files: list[str]
    count: int | UnsetType = UNSET


class WaitingRows(msgspec.Struct, frozen=True, kw_only=True):
    """The late rows that a partition's run saw and left, and the partitions that they belong to."""

    rows: int
    corrections: int
    partitions: list[str]
    sample: list[str]


class IngestedSource(msgspec.Struct, frozen=True, kw_only=True):
    """What `ingest_data` took of one source.

    `checksum` and `seen` are quick checksums: of the partition's own rows, and of what its source
    offered last. `compared` has those that the run compared row by row, by the partition that the
    rows belong to. `marks` are size and time of the partition's own files. `expected` is False
    where the partition lies outside the source's history.
    """

    checksum: str | UnsetType = UNSET
    corrections: int | UnsetType = UNSET
    compared: dict[str, str] | UnsetType = UNSET
    rows: int
    digest: str
    source_digest: str
    files: list[str]
    columns: list[FileHeader]
    late: int | UnsetType = UNSET
    early: int | UnsetType = UNSET
    arrival: str | UnsetType = UNSET
    marks: dict[str, str] | UnsetType = UNSET
    seen: str | UnsetType = UNSET
    waiting: WaitingRows | UnsetType = UNSET
    redriven: int | UnsetType = UNSET
    expected: bool | UnsetType = UNSET

    # Of a static source alone: the version, the partition from which on it is known, is the key
    # under which the lake keeps its rows.
    version: str | UnsetType = UNSET
    observed: str | UnsetType = UNSET
    pending: StaticVersion | UnsetType = UNSET
    restated: int | UnsetType = UNSET

    @property
    def is_expected(self) -> bool:
        """Tell whether the partition lies within the source's history."""
        return self.expected is UNSET or self.expected

    def stored_under(self, key: str) -> str:
        """Return the key under which the lake keeps the rows that partition `key` took."""
        return self.version or key


class StaticVersion(IngestedSource, frozen=True, kw_only=True):
    """What `ingest_data` took of a static source: one version, and `pending`, the next one."""

    version: str
    observed: str

    @classmethod
    def of(cls, source: IngestedSource) -> StaticVersion | None:
        """Return a source as the version that it is, or None where it is not static."""
        return cls(**msgspec.structs.asdict(source)) if source.version else None


class IngestOutputs(Outputs, frozen=True, kw_only=True):
    """What `ingest_data` leaves, by source."""

    sources: dict[str, IngestedSource] = {}


class CuratedSource(msgspec.Struct, frozen=True, kw_only=True):
    """What `validate_data` made of one source; rows set aside are counted by the rule they fail.

    `mark` is the digest of all that a static version's curated rows follow from, `profile` what the
    expectations are asked of: both are recorded of static sources alone.
    """

    table: str | UnsetType = UNSET
    curated_digest: str
    rows: int
    quarantined: int | UnsetType = UNSET
    duplicates: int | UnsetType = UNSET
    conflicts: int | UnsetType = UNSET
    repeated: int | UnsetType = UNSET
    sharing: int | UnsetType = UNSET
    rules: dict[str, int] | UnsetType = UNSET
    version: str | UnsetType = UNSET
    mark: str | UnsetType = UNSET
    profile: dict[str, int | float | None] | UnsetType = UNSET

    def stored_under(self, key: str) -> str:
        """Return the key under which the lake keeps the curated rows of partition `key`."""
        return self.version or key


class LabelTable(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of the labels; `rules` is the digest of what a label is."""

    table: str | UnsetType = UNSET
    digest: str
    rows: int
    rules: str | UnsetType = UNSET


class ValidationOutputs(Outputs, frozen=True, kw_only=True):
    """What `validate_data` leaves; `rules` is the digest of all that judges raw rows.

    `report` is the folder with the result of the expectations.
    """

    verdict: str | UnsetType = UNSET
    sources: dict[str, CuratedSource] = {}
    labels: LabelTable | UnsetType = UNSET
    report: str | UnsetType = UNSET
    rules: str | UnsetType = UNSET


class FeatureTable(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of one view's table; `version` is that of the view's definition."""

    table: str
    version: str
    rows: int
    digest: str


class FeatureOutputs(Outputs, frozen=True, kw_only=True):
    """What `materialize_features` leaves: tables by feature set and view."""

    feature_sets: dict[str, dict[str, FeatureTable]] = {}
    current: str | UnsetType = UNSET
    not_computed: dict[str, str] | UnsetType = UNSET


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
    """The sample of all entities' features that later partitions are compared with."""

    path: str = ""
    rows: int
    entities: int | UnsetType = UNSET
    as_of: str | UnsetType = UNSET


# The parts of a training's outputs on which the verdict rests.
JUDGED = ("counts", "split", "metrics", "feature_auc", "leaks")


class TrainingOutputs(Outputs, frozen=True, kw_only=True):
    """What `train_model` leaves; without a candidate `reason` says why, and few are set.

    `candidate` and `version` are the same number. A metric that was not computable is None.
    """

    candidate: int | None = None
    reason: str | UnsetType = UNSET
    version: int | UnsetType = UNSET
    run_id: str | UnsetType = UNSET
    model_digest: str | UnsetType = UNSET
    feature_set: str | UnsetType = UNSET
    bundle: str | UnsetType = UNSET
    reference: ReferenceSample | UnsetType = UNSET
    training_set: TrainingSet | UnsetType = UNSET
    counts: Counts = Counts()
    split: Split | UnsetType = UNSET
    metrics: dict[str, float | None] | UnsetType = UNSET
    feature_auc: dict[str, float | None] | UnsetType = UNSET
    leaks: Leaks | UnsetType = UNSET

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


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A question of the gate; `passed` is None on a hold. Digests are over `id`, never over prose.

    `id` is missing on records that are older than ids.
    """

    id: str = ""
    name: str
    value: int | float | None
    limit: int | float | None
    passed: bool | None
    reason: str = ""

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
    since the opponent had seen them. `error` is set where something could not be read.
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


class PackageOutputs(Outputs, frozen=True, kw_only=True):
    """What `package_model` leaves; empty where it was skipped."""

    bento_tag: str | UnsetType = UNSET
    model_tag: str | UnsetType = UNSET
    bundle: str | UnsetType = UNSET
    pins: str | UnsetType = UNSET
    export: str | UnsetType = UNSET
    version: int | UnsetType = UNSET


class ComparedWith(msgspec.Struct, frozen=True, kw_only=True):
    """What drift is measured against: an opponent's sample, or (without a version) a partition."""

    kind: Literal["opponent", "before"]
    partition: str
    version: int | None = None


class FeatureStability(msgspec.Struct, frozen=True, kw_only=True):
    """The stability index of a feature; None where it cannot be computed, and `note` says why.

    `reference_missing`, `current_missing` and `unseen` (values that the reference never showed)
    are shares of the rows.
    """

    psi: float | None
    bins: int = 0
    reference_missing: float | None = None
    current_missing: float | None = None
    unseen: float = 0.0
    note: str = ""


class ComparedRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a view on both sides; `lost` is the share of entities that left it since."""

    reference: int
    current: int
    lost: float | None = None


class DriftOutputs(Outputs, frozen=True, kw_only=True):
    """What `check_drift` leaves: the index of each feature, held against one `limit`.

    `error` is set where something could not be read; `report` is None where none could be written.
    """

    verdict: Literal["pass", "drift", "hold"] = "hold"
    reasons: list[str] = []
    error: str | UnsetType = UNSET
    reference: ComparedWith | None = None
    limit: float
    features: dict[str, FeatureStability] = {}
    views: dict[str, ComparedRows] | UnsetType = UNSET
    report: str | UnsetType | None = UNSET


class DeploymentOutputs(Outputs, frozen=True, kw_only=True):
    """What `deploy_model` leaves; `released` is the version that it released."""

    champion: int | UnsetType | None = UNSET
    generation: int | UnsetType = UNSET
    version: int | UnsetType = UNSET
    released: int | UnsetType = UNSET
