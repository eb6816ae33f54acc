"""Find features that cannot be right, or that are too good to be true, before a model is trained on
them.

All findings come at once, each with its evidence and a remedy. A *refusal* ends training; a
*question* is for a person and stands in the report. `docs/explanation/leak-gate.md` has the rules
with what they come to on real data. Everything is a function of the rows and the use case: equal
rows, equal findings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.models import metrics
from include.models.encoding import encode
from include.models.matrix import columns_of, floats, labels_of, learn_schema
from include.training import splits
from include.training.free_text import hardly_repeats

MAX_ROWS = 100_000
MIN_ENTITIES = 50
RANGES = 64
# What marks a part of a column that tells the outcome: at least a tenth of a class, and not one
# row of the other class where 20 would be there if it were as its neighbourhood is.
LEAST_SHARE = 0.1
LEAST_EXPECTED = 20.0
PURE_ROWS = 200  # of fewer a part that is honest, and 98 % of one class, is often all of it
PAIR_ODDS = 6.0
PAIR_VALUES = 50
# Leave-one-out: at most 1 + TRIED trainings of two halves each, on at most TRY_ROWS rows.
TRY_ROWS = 10_000
TRIED = 8
TRY_LEAST = 50  # rows of each class in each half
TRY_GAIN = 0.02  # share of the splits' gain below which a column is not tried
QUESTION, REFUSAL = 0.02, 0.10
# Of fewer features that tell something an honest one may carry the model: never more than a
# question.
MANY = 8
# What a feature's own AUC must be above .5, and how many standard errors of chance.
TELLS, SPREADS = 0.03, 3.0
SMALL: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
ROUNDS = 40

Numbers = NDArray[np.float64]
Level = Literal["refusal", "question"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with features, why it is thought so, and the YAML that mends it."""

    kind: str
    level: Level
    columns: tuple[str, ...]
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.evidence}. {self.remedy}"


@dataclass(frozen=True)
class Findings:
    """All that was found, and the numbers behind it."""

    use_case: str
    found: tuple[Finding, ...] = ()
    alone: Mapping[str, float] = field(default_factory=dict)  # each feature's own AUC, either way
    gains: Mapping[str, float] = field(default_factory=dict)  # AUC lost without the feature
    random_auc: float | None = None  # of the small model, on entities that it has not seen
    excluded: tuple[str, ...] = ()  # what the use case excludes already

    @property
    def refusals(self) -> list[Finding]:
        """What ends training."""
        return [one for one in self.found if one.level == "refusal"]

    @property
    def questions(self) -> list[Finding]:
        """What a person should look at."""
        return [one for one in self.found if one.level == "question"]

    @property
    def carriers(self) -> list[str]:
        """The features that carry the model, the strongest first: by what is lost without them,
        then alone.
        """
        strongest = sorted(
            self.alone, key=lambda name: (-self.gains.get(name, 0.0), -self.alone[name])
        )
        return strongest[:5]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest and the report."""
        return {
            "found": [asdict(one) | {"columns": list(one.columns)} for one in self.found],
            "gains": dict(self.gains),
            "random_auc": self.random_auc,
            "carriers": self.carriers,
        }

    def refuse(self) -> None:
        """Raise ConfigError with every refusal, and one line that mends them all."""
        if not self.refusals:
            return
        names = {name: None for one in self.refusals for name in one.columns[:1]}
        line = f"training: {{exclude: [{', '.join(dict.fromkeys([*self.excluded, *names]))}]}}"
        lines = [f"- {one}" for one in self.refusals]
        head = f"{self.use_case}: {len(lines)} of its features cannot be trained on"
        raise ConfigError("\n".join([head, *lines, f"To leave all of them out, write `{line}`"]))


def without_prose(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training told, its findings without the words that people read: digests are
    over what was found.
    """
    found = [
        {name: one[name] for name in ("kind", "level", "columns")}
        for one in (told.get("leaks") or {}).get("found", ())
    ]
    return {**told, "leaks": {**told["leaks"], "found": found}} if told.get("leaks") else dict(told)


def check(train: pa.Table, use_case: UseCase) -> Findings:
    """Return everything that is wrong with the features on these rows, or asks for a person.

    The frame has the entity's key, `label` (0 or 1) and the features.
    """
    names = use_case.trained_features
    found = [one for name in names if (one := _useless(train, use_case, name)) is not None]
    settled = {one.columns[0] for one in found}
    if len(train) > MAX_ROWS:
        train = train.take(_spread(len(train), MAX_ROWS))
    labels = labels_of(train) if len(train) else metrics.EMPTY
    if metrics.computable(labels):
        alone = {name: _auc(train.column(name), labels) for name in names}
        told = [
            one
            for name in names
            if (one := _telling(train, use_case, labels, name, alone[name])) is not None
        ]
        found += [one for one in told if one.columns[0] not in settled]
        settled |= {one.columns[0] for one in told}
        # of a pair the one that tells more alone comes first: it is likelier the later one
        rest = sorted(
            (name for name in names if name not in settled), key=lambda name: -alone[name]
        )
        found += _pairs(train, use_case, labels, rest)
        refused = {one.columns[0] for one in found if one.level == "refusal" and one.kind != "pair"}
        # What they hide is found in this same run.
        others = [name for name in names if name not in refused]
        carried, gains, area = _carried(train, use_case, labels, alone, others)
        found += carried
    else:
        alone, gains, area = dict.fromkeys(names, 0.5), {}, None
    return Findings(
        use_case.name, tuple(found), alone, gains, area, tuple(use_case.training.exclude)
    )


def _useless(train: pa.Table, use_case: UseCase, name: str) -> Finding | None:
    """Find a feature that has no value, or that names its rows or entities."""
    column, whose = train.column(name), f"feature {name!r} of {use_case.name}"
    if 0 < len(column) == column.null_count:
        text = f"{whose} is null on all {len(column)} training rows"
        return Finding(
            "null",
            "refusal",
            (name,),
            text,
            f"Mend its SQL, its ttl or its source, or {_exclude(name)}",
        )
    if _is_id(train, name, use_case.entity.key):
        text = f"{whose} is an id: it names its rows or entities and would be learnt by heart"
        return Finding("id", "refusal", (name,), text, f"Remove it, or {_exclude(name)}")
    return None


def _telling(
    train: pa.Table, use_case: UseCase, labels: Numbers, name: str, area: float
) -> Finding | None:
    """Find a feature that tells the outcome by itself: as a whole, by its presence, or in a part
    of its values.
    """
    if area > use_case.gates.max_feature_auc:
        limit = use_case.gates.max_feature_auc
        text = (
            f"the outcome leaks through {name} ({area:.3f}): alone it passes "
            f"gates.max_feature_auc ({limit:g})"
        )
        remedy = "or raise the limit if it truly is known at the decision"
        return Finding("alone", "refusal", (name,), text, f"{_exclude(name, upper=True)}, {remedy}")
    for kind, part in itertools.chain(
        _presence(train.column(name), labels), _pure(train.column(name), labels)
    ):
        text = f"the outcome leaks through {name}: {part}"
        return Finding(kind, _level(use_case, name), (name,), text, _ask(name))
    return None


def _level(use_case: UseCase, *names: str) -> Level:
    return "question" if set(names) & set(use_case.training.known_at_decision) else "refusal"


def _exclude(name: str, *, upper: bool = False) -> str:
    return f"{'Write' if upper else 'write'} `training: {{exclude: [{name}]}}`"


def _ask(name: str) -> str:
    return (
        f"Was it written after the outcome? Then write `training: {{exclude: [{name}]}}`; if it "
        f"truly is known at the decision, `training: {{known_at_decision: [{name}]}}`"
    )


def _presence(column: pa.ChunkedArray, labels: Numbers) -> Iterator[tuple[str, str]]:
    """Find that a value is there, or is missing, for one outcome alone."""
    missing = np.asarray(
        pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False), dtype=bool
    )
    wheres = [("is empty", missing), ("has a value", ~missing)]
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        nothing = missing | (floats(column) == 0)
        wheres += [("is empty or 0", nothing), ("is neither empty nor 0", ~nothing)]
    for where, rows in wheres:
        count = int(rows.sum())
        if not 0 < count < len(rows):
            continue
        ones = int(labels[rows].sum())
        outside = (int(labels.sum()) - ones) / (len(rows) - count)
        for outcome, other, rate in ((1, count - ones, 1 - outside), (0, ones, outside)):
            mine = count / float((labels == outcome).sum() or 1)
            if other == 0 and mine >= LEAST_SHARE and count * rate >= LEAST_EXPECTED:
                yield (
                    "presence",
                    f"where it {where}, all {count} rows have outcome {outcome} ({mine:.0%} of "
                    "them)",
                )


def _pure(column: pa.ChunkedArray, labels: Numbers) -> Iterator[tuple[str, str]]:
    """Find a category, or a range of numbers, in which all rows have one outcome although beside
    it they have both.
    """
    known = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), dtype=bool)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text:
        encoded = metrics.encoded_text(column)
        codes, shown = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    else:
        numbers = floats(column)
        known &= ~np.isnan(numbers)
        values, codes = np.unique(numbers, return_inverse=True)
        shown = values.tolist()
    ones = np.bincount(codes[known], weights=labels[known], minlength=len(shown)).astype(np.float64)
    rows = np.bincount(codes[known], minlength=len(shown)).astype(np.float64)
    base = float(labels.mean())
    for outcome, mine, other, rate in (
        (1, ones, rows - ones, 1 - base),
        (0, rows - ones, ones, base),
    ):
        least = max(LEAST_SHARE * float((labels == outcome).sum()), PURE_ROWS)
        for first, end in _runs(other, mine, single=text):
            count = float(mine[first:end].sum())
            if count < least:
                continue
            beside = rate if text else _beside(other, rows, first, end, count)
            if beside >= 0.5 * rate and count * beside >= LEAST_EXPECTED:
                part = (
                    f"is {shown[first]!r}"
                    if end - first == 1
                    else f"lies in {shown[first]:g} to {shown[end - 1]:g}"
                )
                share = count / float((labels == outcome).sum())
                yield (
                    "pure",
                    f"where it {part}, all {count:.0f} rows have outcome {outcome} ({share:.0%} "
                    "of them)",
                )


def _runs(other: Numbers, mine: Numbers, *, single: bool) -> Iterator[tuple[int, int]]:
    """Return the longest runs of values without the other outcome; of categories each is a run
    of its own.
    """
    clean = (other == 0) & (mine > 0)
    if single:
        yield from ((int(place), int(place) + 1) for place in np.flatnonzero(clean))
        return
    clean = other == 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], clean, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _beside(other: Numbers, rows: Numbers, first: int, end: int, count: float) -> float:
    """Return the other outcome's share in as many rows on each side of a range: an honest one
    rises slowly.
    """
    found = []
    for side in (slice(first - 1, None, -1) if first else slice(0, 0), slice(end, None)):
        total = np.cumsum(rows[side])
        if len(total):
            upto = min(int(np.searchsorted(total, count)) + 1, len(total))
            found.append((float(other[side][:upto].sum()), float(total[upto - 1])))
    return sum(one for one, _ in found) / max(sum(all_ for _, all_ in found), 1.0)


def _pairs(
    train: pa.Table, use_case: UseCase, labels: Numbers, names: Sequence[str]
) -> Iterator[Finding]:
    """Find two columns of one set of values of which it tells the outcome whether they are
    equal.
    """
    sets: dict[str, frozenset[Any]] = {}
    for name in names:
        column = train.column(name)
        if pa.types.is_boolean(column.type) or pa.types.is_floating(column.type):
            continue
        values = column.unique()
        if 2 < len(values) <= PAIR_VALUES:
            sets[name] = frozenset(values.drop_null().to_pylist())
    for one, two in itertools.combinations(sets, 2):
        both = sets[one] & sets[two]
        if train.column(one).type != train.column(two).type or 2 * len(both) < len(
            sets[one] | sets[two]
        ):
            continue
        equal = pc.fill_null(pc.equal(train.column(one), train.column(two)), False).to_numpy(
            zero_copy_only=False
        )
        odds, share, word = _odds(np.asarray(equal, dtype=bool), labels)
        if odds >= PAIR_ODDS and share >= LEAST_SHARE:
            text = (
                f"the outcome leaks through {one} beside {two}: whether the two are equal "
                f"multiplies its odds by {odds:.1f} ({share:.0%} of an outcome's rows are {word})"
            )
            remedy = (
                "Is one of them written after the other? Then write `training: {exclude: "
                f"[{one}]}}` or `training: {{exclude: [{two}]}}`; if both are known at the "
                f"decision, `training: {{known_at_decision: [{one}, {two}]}}`"
            )
            # whole numbers are mostly counts, of which both are 0 where nothing happened
            text_alone = not pa.types.is_integer(train.column(one).type)
            level = _level(use_case, one, two) if text_alone else "question"
            yield Finding("pair", level, (one, two), text, remedy)


def _odds(equal: NDArray[np.bool_], labels: Numbers) -> tuple[float, float, str]:
    """Return by how much equality changes the odds (the lower end of its 95 % interval), and the
    telling part's share.
    """
    cells = [
        [float((labels[equal == side] == outcome).sum()) + 0.5 for outcome in (0, 1)]
        for side in (False, True)
    ]
    (no_zero, no_one), (yes_zero, yes_one) = cells
    logarithm = abs(float(np.log(no_zero * yes_one / (no_one * yes_zero))))
    spread = metrics.Z95 * float(np.sqrt(sum(1 / cell for row in cells for cell in row)))
    smaller = equal.sum() * 2 <= len(equal)
    rows = equal if smaller else ~equal
    shares = [
        float((rows & (labels == outcome)).sum() / max((labels == outcome).sum(), 1))
        for outcome in (0, 1)
    ]
    return (
        float(np.exp(max(logarithm - spread, 0.0))),
        max(shares),
        "equal" if smaller else "unequal",
    )


def _carried(
    train: pa.Table,
    use_case: UseCase,
    labels: Numbers,
    alone: Mapping[str, float],
    names: Sequence[str],
) -> tuple[list[Finding], dict[str, float], float | None]:
    """Find features without which a small model is much worse; return them, the losses, and the
    small model's AUC.

    Every row is scored by a model of the half of the entities that it does not belong to.
    """
    if len(train) > TRY_ROWS:
        places = _spread(len(train), TRY_ROWS)
        train, labels = train.take(places), labels[places.to_numpy()]
    key = use_case.entity.key
    half = splits.hash_shares(train.column(key).to_pylist(), use_case.training.seed) < 0.5
    least = min(
        int((labels[side] == outcome).sum()) for side in (half, ~half) for outcome in (0, 1)
    )
    if least < TRY_LEAST or len(names) < 2:
        return [], {}, None
    schema = learn_schema(train, use_case, "leaks")
    matrix, coded = encode(columns_of(train, schema), schema), set(schema.categorical)
    everything = [schema.names.index(name) for name in names]
    scores, weights = _scored(matrix, labels, half, everything, coded)
    area = metrics.auc(labels, scores)
    many = _tell(labels, [alone[name] for name in names]) >= MANY
    found, gains = [], {}
    for place in np.argsort(-weights, kind="stable")[:TRIED].tolist():
        if weights[place] < TRY_GAIN:
            break
        name, rest = names[place], [other for other in everything if other != everything[place]]
        without, _ = _scored(matrix, labels, half, rest, coded)
        lost = metrics.auc_difference(labels, scores, without, train.column(key))
        gains[name] = lost.value
        if lost.value > QUESTION and lost.low > 0:
            found.append(_carries(use_case, name, area, lost.value, alone[name], many=many))
    return found, gains, area


def _tell(labels: Numbers, alone: Sequence[float]) -> int:
    """Count the features that tell something by themselves: columns of noise beside them make no
    honest one suspect.
    """
    ones = float(labels.sum())
    zeros = len(labels) - ones
    # Of an AUC of noise: Hanley and McNeil 1982.
    chance = np.sqrt((ones + zeros + 1) / (12 * ones * zeros))
    return int((np.asarray(alone) >= 0.5 + max(TELLS, SPREADS * float(chance))).sum())


def _carries(
    use_case: UseCase, name: str, area: float, lost: float, alone: float, *, many: bool
) -> Finding:
    level = _level(use_case, name) if lost > REFUSAL and many else "question"
    text = (
        f"{name} carries the model: with it a small model's AUC is {area:.3f}, without it "
        f"{area - lost:.3f} (alone it has {alone:.3f})"
    )
    return Finding("carries", level, (name,), text, _ask(name))


def _scored(
    matrix: Numbers,
    labels: Numbers,
    half: NDArray[np.bool_],
    chosen: Sequence[int],
    categorical: set[int],
) -> tuple[Numbers, Numbers]:
    """Return each row's score by a small model of the other half, and the columns' shares of the
    gain.
    """
    import lightgbm

    scores, weights = np.empty(len(labels)), np.zeros(len(chosen))
    coded = [place for place, column in enumerate(chosen) if column in categorical]
    for learnt in (half, ~half):
        data = lightgbm.Dataset(
            matrix[learnt][:, chosen], labels[learnt], categorical_feature=coded, params=SMALL
        )
        booster = lightgbm.train(SMALL, data, num_boost_round=ROUNDS)
        scores[~learnt] = booster.predict(matrix[~learnt][:, chosen], num_threads=1)
        weights += booster.feature_importance("gain")
    return scores, weights / (weights.sum() or 1.0)


def _spread(rows: int, kept: int) -> pa.Array:
    return pa.array(np.linspace(0, rows - 1, kept).astype(np.int64))


def _is_id(train: pa.Table, name: str, key: str) -> bool:
    """Tell whether a feature copies the key, counts its entities, or is a text that hardly ever
    repeats.
    """
    column, entities = train.column(name), train.column(key)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        return False
    known = pc.is_valid(column)
    column, entities = column.filter(known), entities.filter(known)
    values = pc.count_distinct(column).as_py()
    count = pc.count_distinct(entities).as_py()
    if count < MIN_ENTITIES:
        return False
    if kind == entities.type and pc.all(pc.equal(column, entities)).as_py():
        return True
    if pa.types.is_string(kind) and hardly_repeats(len(column), values):
        return True
    pairs = len(pa.table({"a": column, "b": entities}).group_by(["a", "b"]).aggregate([]))
    if not (pairs == values == count):
        return False
    span = None if pa.types.is_string(kind) else pc.max(column).as_py() - pc.min(column).as_py()
    return span is None or span < 2 * values


def _auc(column: pa.ChunkedArray, labels: NDArray[np.float64]) -> float:
    """Return how well one feature ranks the outcome, or splits it; missing is a value of its own.

    Text, and numbers in ranges (the outcome may follow a number down and up again), count by the
    mean outcome of other rows.
    """
    if pa.types.is_string(column.type):
        scores = _outcome_means(column.to_pylist(), labels)
    else:
        scores = floats(column)
        # Infinities too become numbers.
        usual = np.nan_to_num(scores, nan=-np.finfo(np.float64).max)
        missing = np.isnan(scores).astype(np.float64)
        ranges = np.searchsorted(
            np.unique(np.quantile(usual, np.linspace(0, 1, RANGES + 1), method="lower")), usual
        )
        ranged = metrics.auc(labels, _outcome_means(ranges.tolist(), labels))
        return max(
            _either_way(labels, usual),
            _either_way(labels, missing),
            ranged if ranged == ranged else 0.5,  # noqa: PLR0124 - NaN
        )
    return _either_way(labels, scores)


def _either_way(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    value = metrics.auc(labels, scores)
    return max(value, 1 - value) if value == value else 0.5  # noqa: PLR0124 - NaN


def _outcome_means(values: Sequence[object], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score each half of the rows by the smoothed mean outcome of their value in the other half:
    nothing is learnt by heart.
    """
    codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
    encoded = np.array([codes[value] for value in values])
    half = np.arange(len(labels)) % 2 == 0
    base = float(labels.mean())
    scores = np.empty(len(labels))
    for mine, other in ((half, ~half), (~half, half)):
        sums = np.bincount(encoded[other], weights=labels[other], minlength=len(codes))
        counts = np.bincount(encoded[other], minlength=len(codes))
        scores[mine] = ((sums + base) / (counts + 1))[encoded[mine]]
    return scores
