"""Training sees what the node would answer: decisions replayed through the online rows.

Partition after partition is made online; each decision is asked of the newest that was there at its
moment, with its own row in the request. The answers must be the rows of the training frame.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case_file import find
from include.deployment.description import Description
from include.features import feature_sets, frames, online_reader, online_stores, online_sync
from include.lake.digests import digest
from include.lake.sql import TIMESTAMP
from include.lake.tables import Lake
from include.pipeline import ranges
from include.pipeline.execution import Execution
from include.point_in_time import partitions
from include.point_in_time.curated import curated_schema, curated_table
from include.records.records import Records, StageResult
from include.serving import predict
from include.serving.prediction_request import CheckedRequest
from include.serving.snapshot import Loaded, Online, Served
from tests.builders.variants import leave_to_slow

DAY, HOUR, US = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
SOURCE = """
  {name}:
    path: "{name}.csv"
    empty: allow
    key: [id]
    columns: {{id: {{type: int64}}, customer_id: {{type: int64}}, {name}_value: {{type: int64}}}}"""
YAML = (
    """
name: shop
cadence: {cadence}
cut_off: {cut_off}
availability: {availability}
history: {{first: 2025-01-01{last}}}
entity: {{name: customer, key: customer_id}}
sources:"""
    + "".join(
        SOURCE.format(name=name).replace("{", "{{").replace("}", "}}")
        for name in ("orders", "calls", "loans")
    )
    + """
label: {{source: loans, column: id, delay: 1d}}
features:
  spending:
    sql: SELECT customer_id, count(*) AS orders, sum(orders_value) AS spent
        FROM orders GROUP BY customer_id
    lookback: {lookback}
    ttl: {ttl}
    columns: {{orders: int64, spent: float64}}
  call:
    grain: event
    source: calls
    ttl: {ttl}
    columns: {{calls_value: int64}}
  call_by_sql:
    grain: event
    sql: SELECT customer_id, event_timestamp, created_timestamp, -calls_value AS negative FROM calls
    lookback: {lookback}
    ttl: {long}
    columns: {{negative: int64}}
  loan:
    grain: event
    source: loans
    ttl: {ttl}
    columns: {{loans_value: int64}}
fallback: {{unknown: score, stale: score}}
"""
)
Row = tuple[int, int, int, datetime, datetime]  # id, customer, value, event, created


class Replay:
    """One installation.

    `arrive` writes curated rows into the partitions in which they arrived and computes all
    features.
    """

    def __init__(self, home: Path, **knobs: str) -> None:
        (home / "usecases").mkdir(parents=True)
        (home / "usecases" / "shop.yaml").write_text(YAML.format(**knobs))
        self.settings = Settings(home=home, usecases=str(home / "usecases"))
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)
        self.use_case = find("shop", self.settings.usecase_dirs)
        self.feature_set = feature_sets.current(self.use_case)
        self.periods: list[partitions.Period] = []

    def arrive(self, rows: dict[str, list[Row]], first: str, last: str) -> None:
        self.periods = [
            partitions.period(self.use_case, key)
            for key in partitions.between(self.use_case, first, last)
        ]
        for period in self.periods:
            sources = {}
            for name, body in rows.items():
                schema = curated_schema(self.use_case.sources[name])
                here = [row for row in body if period.arrival_start <= row[4] < period.as_of]
                columns = list(zip(*here, strict=True)) or [()] * len(schema)
                table = pa.table(
                    [pa.array(one, field.type) for one, field in zip(columns, schema, strict=True)],
                    schema=schema,
                )
                stored = curated_table(self.lake, self.use_case, name)
                self.lake.replace(stored, period.key, table)
                sources[name] = {
                    "table": stored,
                    "curated_digest": digest(table, sort_by=["id"]),
                    "rows": len(table),
                }
            self._record(period.key, sources)
        keys = [period.key for period in self.periods]
        done = list(ranges.run_range("materialize_features", "shop", keys, settings=self.settings))
        assert {report.state for report in done} == {"done"}, [report.reason for report in done]

    def _record(self, key: str, sources: dict[str, Any]) -> None:
        now = utc_now()
        self.records.partitions.raise_to(
            "shop", key, mode="backfill", target="data", actor="test", at=now
        )
        with self.records.leases.claim(
            "shop", "validate_data", key, owner="test", attempt=1, ttl=30
        ) as lease:
            outputs = {"sources": sources}
            made = StageResult(
                "shop",
                key,
                "validate_data",
                "done",
                key,
                "",
                outputs,
                [],
                "",
                "backfill",
                now,
                now,
                0,
                "none",
                lease.token,
            )
            self.records.results.commit(lease, made)

    def materialize(self, key: str) -> None:
        """Bring the online rows to a partition, without Feast's mirror of them."""
        with self.records.leases.claim(
            "shop", "materialize_features", key, owner=f"test {key}", attempt=1, ttl=30
        ) as lease:
            execution = Execution.begin(
                "materialize_features", self.use_case.name, settings=self.settings
            )
            context = execution.context(key, lease)
            online_sync.materialize(context, [self.feature_set.version], current="")

    def answers(
        self, decisions: list[tuple[int, datetime, dict[str, Any] | None]]
    ) -> Iterator[tuple[list[Any], list[str]]]:
        """Yield what the node would ask its model with, and the flags, in order of time."""
        names = list(self.feature_set.feature_types)
        there = Online(online_stores.online_path(self.settings, "shop"))
        served = Served(Description.of(self.use_case), online=there)
        model = Loaded(1, "sha256:m", self.feature_set.version, "", scorer=Reads(names))
        coming = list(self.periods)
        for customer, moment, row in decisions:
            while coming and coming[0].as_of + self.use_case.availability <= moment:
                self.materialize(coming.pop(0).key)
                there.refresh()
            micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // US
            horizon = predict.Horizon(
                Description.of(self.use_case), clock=lambda micros=micros: micros * 1000
            )  # type: ignore[misc]
            # Before anything is online, nobody can be asked.
            if there.describe(self.feature_set.version) is None:
                yield [None if row is None else row.get(name) for name in names], ["unknown"]
                continue
            found = predict.find_features(CheckedRequest(customer, row), served, model, horizon)
            yield [found.row[name] for name in names], found.flags

    def frame(
        self, decisions: list[tuple[int, datetime, dict[str, Any] | None]]
    ) -> list[list[Any]]:
        """Return the training frame's features of the decisions."""
        moments = pa.array([moment for _, moment, _ in decisions], TIMESTAMP)
        asked = pa.table(
            {
                "customer_id": pa.array([one for one, _, _ in decisions], pa.int64()),
                "event_timestamp": moments,
            }
        )
        versions = frames.table_versions(self.lake, self.use_case, self.feature_set)
        found = frames.training_frame(
            self.settings, self.use_case, self.feature_set, asked, versions, records=self.records
        ).select(list(self.feature_set.feature_types))
        return [list(row.values()) for row in found.to_pylist()]


class Reads:
    """A model that is only asked which features it reads."""

    def __init__(self, features: list[str]) -> None:
        self.features = features

    def one(self, row: Any) -> float:
        """Return no score that anybody looks at."""
        return 0.5


CASES = {
    "day": (
        "2025-01-01",
        "2025-01-11",
        {"cadence": "day", "cut_off": "0s", "availability": "0s", "ttl": "2d", "long": "5d"},
    ),
    "day, cut_off and availability": (
        "2025-01-01",
        "2025-01-09",
        {"cadence": "day", "cut_off": "5h", "availability": "7h", "ttl": "3d", "long": "30h"},
    ),
    "month": (
        "2025-01-01",
        "2025-08-01",
        {"cadence": "month", "cut_off": "3d", "availability": "0s", "ttl": "35d", "long": "20d"},
    ),
    "month, availability, ended": (
        "2025-01-01",
        "2025-09-01",
        {
            "cadence": "month",
            "cut_off": "0s",
            "availability": "2d",
            "ttl": "50d",
            "long": "10d",
            "last": ", last: 2025-09-01",
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", leave_to_slow(CASES, quick=2))
def test_the_node_answers_what_the_training_frame_holds(tmp_path: Path, name: str) -> None:
    """Late older events, restated rows, rows at the boundaries, customers who come and go.

    Three views of two grains.
    """
    first, last, knobs = CASES[name]
    replay = Replay(
        tmp_path,
        **{"last": "", "lookback": "60d" if knobs["cadence"] == "month" else "6d", **knobs},
    )
    draw = random.Random(name)
    periods = [
        partitions.period(replay.use_case, key)
        for key in partitions.between(replay.use_case, first, last)
    ]
    start, end = periods[0].arrival_start, periods[-1].as_of
    length = (end - start) / len(periods)

    def moment(low: datetime, high: datetime) -> datetime:
        """Some moment, often within a microsecond of a boundary."""
        if draw.random() < 0.3:
            edge = draw.choice(periods).as_of + draw.choice(
                [timedelta(0), replay.use_case.availability]
            )
            at = edge + draw.choice([-US, 0 * US, US])
            if low <= at < high:
                return at
        return low + timedelta(seconds=draw.randrange(int((high - low).total_seconds())))

    rows: dict[str, list[Row]] = {"orders": [], "calls": [], "loans": []}
    decisions: list[tuple[int, datetime, dict[str, Any] | None]] = []
    for number in range(260):
        customer = draw.randrange(14)
        low = start + (end - start) * (customer % 4) / 6  # some come late
        high = min(end, low + (end - start) / (1 + customer % 3))  # and some leave
        source = draw.choice(["orders", "calls", "loans"])
        event = moment(low, high)
        if source == "loans" and (customer, event) in {(one, at) for one, at, _ in decisions}:
            continue  # which of two decisions of one moment stands is no question of time
        created = event + draw.choice([timedelta(0), US, HOUR, length * draw.random() * 2])
        rows[source].append((number, customer, number, event, created))
        if draw.random() < 0.25:
            rows[source].append(
                (number, customer, 1000 + number, event, created + length * draw.random() * 2 + US)
            )
        if source == "loans" and created < end:  # else nobody knows of the decision yet
            decisions.append((customer, event, {"loans_value": number}))
    decisions.sort(key=lambda one: one[1])
    replay.arrive(rows, first, last)
    served, flags = zip(*replay.answers(decisions), strict=True)
    trained = replay.frame(decisions)
    for (customer, at, _), online_row, frame_row, said in zip(
        decisions, served, trained, flags, strict=True
    ):
        assert online_row == frame_row, f"customer {customer} at {at}: {said}"
    kinds = {tuple(one) for one in flags}
    assert {(), ("stale", "fallback"), ("unknown", "fallback")} <= kinds, (
        f"the draw shows too little: {kinds}"
    )
    assert sum(None not in row for row in trained) > 5
    assert (
        online_reader.OnlineReader(online_stores.online_path(replay.settings, "shop")).count(
            replay.feature_set.version
        )
        > 5
    )
