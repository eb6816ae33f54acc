"""What the rows say of when a column was written: how much it tells, and beside which twin.

A file does not say that a column was changed after the outcome. Its name may, and so may its
values: one that tells the outcome nearly alone, values that come with one outcome only, and a
column that differs from its twin (reserved and assigned) on rows of another outcome.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from include.lake.sql import quote, text_literal
from include.onboarding.header_words import FIRST_TWIN, LATER_TWIN, plain, sounds_late
from include.onboarding.label_values import ONES, Positive
from include.onboarding.profile import Profile, Table, text

TELLS_ALONE = 0.95  # AUC of one column from which its name need not say that it was written later
TELLS = 0.65  # and from which it is taken for written later where its name says so
BINS = 40
_ROWS_A_BIN = 50  # with fewer rows a table has fewer bins
SAMPLE = 200_000  # rows by which it is judged, evenly taken: more would not change the digits shown
_RARE = 30  # rows of a bin below which its rate says little
# A bin of one outcome alone is named where that is less likely than this by chance.
_CHANCE = 1e-6
_SHARE = 0.02  # of the rows; fewer of one outcome, such as the youngest, are to be expected
_OTHER = "other values"


Count = tuple[int, int]  # rows of the outcome 1, and all rows


class Bin(NamedTuple):
    """The rows with one value, or with values of one range, by halves of the table."""

    value: str | None
    first: Count
    second: Count


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rows say of one column.

    `auc` of the column alone, from half of the rows on the other half; `one_class` says for which
    of its values there is one outcome only; `twin` in how many rows it differs from which column.
    """

    auc: float
    one_class: str = ""
    twin: str = ""
    telling_twin: bool = False

    def marks(self, column: Profile) -> list[str]:
        """Return what a person should know of the column, the plainest first."""
        found = []
        if sounds_late(column.header):
            found.append("sounds written after the outcome")
        if self.auc >= 0.8:
            found.append(f"tells the outcome alone (AUC {self.auc:.2f})")
        if self.one_class:
            found.append(f"only in one class: {self.one_class}")
        if self.twin:
            found.append(self.twin)
        return found

    def written_later(self, column: Profile) -> bool:
        """Guess whether the column was written after the decision."""
        if self.auc >= TELLS_ALONE or self.telling_twin:
            return True
        return sounds_late(column.header) and (self.auc >= TELLS or bool(self.one_class))


def find_evidence(
    table: Table, columns: Sequence[Profile], label: Profile, positive: Positive | None
) -> dict[str, Evidence]:
    """Return what the rows with an outcome say of each column, by its header."""
    known = text(label.header)
    ones = ", ".join(map(text_literal, positive.ones if positive else ONES))
    one = f"({known if positive else f'lower({known})'} IN ({ones}))"
    step = max(1, table.rows // SAMPLE)
    # Halves by the hash of the place: rows that stand in an order are in both.
    judged = (
        f"SELECT *, {one}::INT AS __one, hash(rowid) % 2 = 0 AS __first FROM given "
        f"WHERE {known} IS NOT NULL AND rowid % {step} = 0"
    )
    found = {}
    for column in columns:
        if column.header in (known_of := table.evidence.setdefault((label.header, ones), {})):
            found[column.header] = known_of[column.header]
            continue
        auc, one_class = _alone(table, judged, column)
        twin, tells = next(_twins(table, judged, column, columns), ("", False))
        found[column.header] = known_of[column.header] = Evidence(auc, one_class, twin, tells)
    return found


def _alone(table: Table, judged: str, column: Profile) -> tuple[float, str]:
    """Return the AUC of a column alone, and which of its values have one outcome only."""
    value = text(column.header)
    bins = max(2, min(BINS, column.rows // _ROWS_A_BIN))
    if column.type in ("int64", "float64") and column.distinct > bins:
        number = f"TRY_CAST({value} AS DOUBLE)"
        # By quantiles of the values: equal ones stay in one bin.
        cuts = table.scalar(
            f"SELECT quantile_cont({number}, {[n / bins for n in range(1, bins)]}) FROM ({judged}) "
            f"WHERE isfinite({number})"
        )
        cuts = sorted({float(cut) for cut in cuts or []})
        place = f"len(list_filter({cuts}::DOUBLE[], lambda cut: cut <= {number}))"
        value = f"CASE WHEN {number} IS NOT NULL THEN {place}::VARCHAR END"
    else:
        cuts = []
        common = (
            f"SELECT {value} FROM ({judged}) GROUP BY ALL HAVING count(*) >= {_RARE} "
            "ORDER BY count(*) DESC LIMIT 500"
        )
        value = (
            f"CASE WHEN {value} IS NULL THEN NULL WHEN {value} IN ({common}) THEN {value} "
            f"ELSE {text_literal(_OTHER)} END"
        )
    rows = table.rows_of(
        f"SELECT {value} AS v, sum(__one) FILTER (__first), count(*) FILTER (__first), "
        f"sum(__one) FILTER (NOT __first), count(*) FILTER (NOT __first) FROM ({judged}) GROUP BY v"
    )
    bins_of = [
        Bin(None if v is None else str(v), (int(p1 or 0), int(n1)), (int(p2 or 0), int(n2)))
        for v, p1, n1, p2, n2 in rows
    ]
    return _auc(bins_of), _one_class(bins_of, cuts, column)


def _auc(bins: Sequence[Bin]) -> float:
    """Return the AUC on one half of the rates that the other half has in each bin; both ways."""
    one_way = [(each.first, each.second) for each in bins]
    areas = [_area(one_way), _area([(second, first) for first, second in one_way])]
    return sum(areas) / len(areas)


def _area(bins: Sequence[tuple[Count, Count]]) -> float:
    """Return the AUC on the second counts, in the order of the rates of the first ones."""
    ones, rows = (sum(first[place] for first, _ in bins) for place in (0, 1))
    mean = ones / rows if rows else 0.0
    ranked: dict[float, list[int]] = {}
    for first, (one, count) in bins:
        # Ten rows of the mean: a bin of few rows says little. Bins of one rate are one.
        rate = (first[0] + 10 * mean) / (first[1] + 10)
        counts = ranked.setdefault(rate, [0, 0])
        counts[0], counts[1] = counts[0] + one, counts[1] + count - one
    positives, negatives = (sum(counts[place] for counts in ranked.values()) for place in (0, 1))
    if not positives or not negatives:
        return 0.5
    below, wins = 0, 0.0
    for _, (one, zero) in sorted(ranked.items()):
        wins += one * (below + zero / 2)
        below += zero
    return wins / (positives * negatives)


def _one_class(bins: Sequence[Bin], cuts: Sequence[float], column: Profile) -> str:
    """Return the most frequent values with one outcome only, by far more than chance gives."""
    counted = [
        (each.value, each.first[0] + each.second[0], each.first[1] + each.second[1])
        for each in bins
    ]
    total = sum(rows for _, _, rows in counted)
    mean = sum(ones for _, ones, _ in counted) / max(1, total)
    pure = [
        (value, ones, rows)
        for value, ones, rows in counted
        if ones in (0, rows)
        and rows >= max(_RARE, _SHARE * total)
        and (1 - mean if ones == 0 else mean) ** rows < _CHANCE
    ]
    if not pure:
        return ""
    # Of equally many rows always the same one: groups come in no order.
    value, _, rows = max(pure, key=lambda each: (each[2], str(each[0])))
    if value is None:
        where = "no value"
    elif cuts:
        place = int(value)
        low = f"{cuts[place - 1]:g} or more" if place else ""
        high = f"below {cuts[place]:g}" if place < len(cuts) else ""
        where = " and ".join(filter(None, (low, high)))
    else:
        where = value[:30]
    more = f" and {len(pure) - 1} more" if len(pure) > 1 else ""
    return f"{where} ({rows} rows{more})"


def _twins(
    table: Table, judged: str, column: Profile, columns: Sequence[Profile]
) -> Iterator[tuple[str, bool]]:
    """Yield how a column that sounds later differs from its twin, and whether that tells."""
    name = plain(column.header)
    word = LATER_TWIN.search(name)
    if word is None:
        return
    rest = _without(name, word)
    for other in columns:
        twin = plain(other.header)
        sign = FIRST_TWIN.search(twin)
        if other is column or sign is None or _without(twin, sign) != rest:
            continue
        differs = f"{quote(column.header)} IS DISTINCT FROM {quote(other.header)}"
        ((share, rate, usual, count),) = table.rows_of(
            f"SELECT avg(({differs})::INT), avg(__one) FILTER ({differs}), avg(__one) FILTER (NOT "
            f"({differs})), count(*) FILTER ({differs}) FROM ({judged})"
        )
        if not share or rate is None or usual is None or share > 0.5:
            continue
        said = (
            f'differs from "{other.header[:40]}" in {share:.1%} of the rows, where the outcome is '
            f"{rate:.0%} instead of {usual:.0%}"
        )
        yield said, count >= _RARE and abs(rate - usual) >= 0.1


def _without(name: str, word: re.Match[str]) -> str:
    return re.sub(r"_+", "_", f"{name[: word.start()]}_{name[word.end() :]}").strip("_")
