"""A one-source use case over files: what the tests of sources, ingestion, validation and bad
input share.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from include.pipeline import execution
from include.point_in_time import partitions
from include.point_in_time.curated import curated_table
from tests.builders.installation import Installation

HEAD = "order_id,customer_id,event_timestamp,created_timestamp,amount,paid\n"
GOOD = (
    "1,1,2026-01-01T10:00:00Z,2026-01-01T10:00:00Z,10,1\n"
    "2,2,2026-01-01T11:00:00Z,2026-01-01T11:00:00Z,20,0\n"
    "3,1,2026-01-02T10:00:00Z,2026-01-02T10:00:00Z,30,1\n"
    "4,2,2026-01-03T10:00:00Z,2026-01-03T10:00:00Z,40,1\n"
)
COLUMNS = """
      order_id: {type: int64, nullable: false}
      customer_id: {type: int64, nullable: false}
      amount: {type: float64}
      paid: {type: int64, values: ["0", "1"]}"""
YAML = """
name: shop
history: {{first: 2026-01-01}}
entity: {{name: customer, key: customer_id}}
sources:
  orders:
    path: "{path}"
    key: [order_id]
    {more}
    columns: {columns}
label: {{source: orders, column: paid, label_time: event + 1d, delay: 1d}}
features:
  spending:
    lookback: 30d
    columns: {{total: float64}}
    sql: SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id
"""


class Intake(Installation):
    """An installation with the use case `shop`; its files lie beside the YAML."""

    def __init__(
        self,
        home: Path,
        *,
        path: str = "orders.csv",
        more: str = "",
        columns: str = COLUMNS,
        **settings: Any,
    ) -> None:
        self.folder = home / "usecases"
        self.folder.mkdir(parents=True)
        self.define(path=path, more=more, columns=columns)
        super().__init__(home, "shop", **settings)

    def define(self, *, path: str = "orders.csv", more: str = "", columns: str = COLUMNS) -> None:
        """Write the use case's file."""
        (self.folder / "shop.yaml").write_text(YAML.format(path=path, more=more, columns=columns))

    def put(self, content: str | bytes, name: str = "orders.csv") -> Path:
        """Write a file beside the YAML."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, stage: str, key: str, **options: Any) -> execution.Report:
        """Run one stage for one partition, by default in its own night, a minute after its
        `as_of`.
        """
        options.setdefault("started", self.night(key))
        return super().run(stage, key, **options)

    def night(self, key: str, after: timedelta = timedelta(minutes=1)) -> datetime:
        """Return the moment of a partition's own night."""
        return partitions.period(self.use_case, key).as_of + after

    def ingest(
        self, key: str = "2026-01-01", at: datetime | None = None, **options: Any
    ) -> execution.Report:
        """Ingest one partition, at some moment or in its own night."""
        return self.run("ingest_data", key, options=options, started=at or self.night(key))

    def validate(self, key: str = "2026-01-01") -> execution.Report:
        """Ingest and validate one partition."""
        self.ingest(key)
        return self.run("validate_data", key)

    def raw(self, key: str, source: str = "orders") -> list[dict[str, Any]]:
        """Return the raw rows of a partition."""
        return list(self.lake.read(f"shop/raw/{source}", keys=[key]).to_pylist())

    def curated(self, key: str, source: str = "orders") -> list[dict[str, Any]]:
        """Return the curated rows of a partition, as today's contract types them."""
        return list(
            self.lake.read(curated_table(self.lake, self.use_case, source), keys=[key]).to_pylist()
        )

    def rules(self, key: str, source: str = "orders") -> dict[int, str]:
        """Return the rule that each quarantined row failed, by its number in the file."""
        rows = self.lake.read(f"shop/quarantine/{source}", keys=[key])
        return {row["source_row"]: row["rule"] for row in rows.to_pylist()}

    def versions(self) -> dict[str, int | None]:
        """Return the version of every lake table."""
        return {table: self.lake.version(table) for table in self.tables()}
