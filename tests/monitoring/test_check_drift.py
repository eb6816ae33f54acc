"""The drift stage over a real lake and real records: which reference, which verdict, what the
report may not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.errors import MissingPartition
from include.features import feature_sets
from include.lake.digests import digest
from include.lake.sql import TIMESTAMP
from include.lake.tables import Lake
from include.monitoring import check_drift, drift_report
from include.monitoring.psi import Stability
from include.pipeline import runner
from include.predictions import import_segments
from include.predictions import log as prediction_log
from include.predictions.log import Prediction, PredictionLog
from include.records.records import Model, Records, StageResult

KEYS = [f"2026-01-{day:02}" for day in range(1, 8)]
AT = datetime(2026, 2, 1, tzinfo=UTC)
YAML = """\
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders: {path: x.csv, key: [customer_id],
    columns: {customer_id: {type: int64}, channel: {type: string}}}
label: {sql: "select 1", delay: 1d}
features:
  spend:
    sql: select customer_id, 1.0 as amount, 'a' as kind from orders
    ttl: 2d
    columns: {amount: float64, kind: string}
  visits:
    grain: event
    source: orders
    columns: {channel: string}
monitoring: {sample: 2000, report_rows: 200}
"""


class House:
    """One installation, whose features are written by the test."""

    def __init__(self, folder: Path) -> None:
        (folder / "shop.yaml").write_text(YAML)
        self.settings = Settings(home=folder / "var", usecases=str(folder))
        self.settings.home.mkdir()
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)
        self.use_case: UseCase = find("shop", [folder])
        self.feature_set = feature_sets.current(self.use_case)
        self.records.feature_sets.add("shop", self.feature_set.version, self.feature_set.to_dict())

    def day(
        self,
        key: str,
        *,
        mean: float = 50.0,
        kinds: str = "ab",
        channels: str = "xy",
        opponent: int | None = None,
    ) -> None:
        """Write the features of 400 customers and 200 visits, and record the day as judged."""
        rng = np.random.default_rng(int(key[-2:]))
        as_of = datetime.fromisoformat(key).replace(tzinfo=UTC) + timedelta(days=1)
        amount = rng.normal(mean, 10, 400)
        amount[:5] = np.inf
        kind = rng.choice(list(kinds), 400).astype(object)
        kind[5:10] = None
        self.view("spend", key, as_of, list(range(400)), {"amount": amount, "kind": kind})
        self.view(
            "visits",
            key,
            as_of - timedelta(hours=1),
            list(range(200)),
            {"channel": rng.choice(list(channels), 200)},
        )
        made = {
            view.name: {
                "table": view.table("shop"),
                "version": view.version,
                "rows": 1,
                "digest": f"{view.name} {key} {mean}",
            }
            for view in self.feature_set.views
        }
        outputs = {
            "feature_sets": {self.feature_set.version: made},
            "current": self.feature_set.version,
        }
        self.records.partitions.raise_to(
            "shop", key, mode="backfill", target="judged", actor="test", at=AT
        )
        self.record(key, "materialize_features", outputs)
        self.record(key, "evaluate_model", {"verdict": "pass", "opponent": opponent})

    def view(
        self, name: str, key: str, at: datetime, entities: list[int], columns: dict[str, Any]
    ) -> None:
        view = next(view for view in self.feature_set.views if view.name == name)
        times = pa.array([at] * len(entities), TIMESTAMP)
        rows = pa.table(
            {
                "customer_id": entities,
                "event_timestamp": times,
                "created_timestamp": times,
                **columns,
            }
        )
        self.lake.replace(view.table("shop"), key, rows.cast(view.schema))

    def record(self, key: str, stage: str, outputs: dict[str, Any]) -> None:
        with self.records.leases.claim(
            "shop", stage, key, owner="test", attempt=1, ttl=30
        ) as lease:
            made = StageResult(
                "shop",
                key,
                stage,
                "done",
                f"{stage} {outputs}",
                "",
                outputs,
                [],
                "m",
                "backfill",
                AT,
                AT,
                0,
                "none",
            )
            self.records.results.commit(lease, made)

    def model(self, version: int, key: str) -> None:
        """Record a model of a day with the sample that training keeps."""
        rng = np.random.default_rng(99)
        path = self.settings.home / f"reference-{version}.parquet"
        sample = {
            "customer_id": np.arange(400),
            "amount": rng.normal(50, 10, 400),
            "kind": rng.choice(["a", "b"], 400),
        }
        pq.write_table(pa.table({**sample, "channel": pa.array(["x"] * 400)}), path)
        manifest = {"reference": {"path": str(path), "rows": 400}}
        named = {
            "use_case": "shop",
            "version": version,
            "model_digest": f"sha256:{version}",
            "partition": key,
            "as_of": AT,
        }
        self.records.models.add(
            Model(
                **named,
                mode="live",
                feature_set=self.feature_set.version,
                bundle="",
                manifest=manifest,
            )  # type: ignore[arg-type]
        )

    def run(self, key: str) -> runner.Report:
        return runner.run("check_drift", "shop", key, settings=self.settings)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    built = House(tmp_path)
    yield built
    built.records.close()


def test_a_first_partition_has_no_reference_and_is_held(house: House) -> None:
    house.day(KEYS[0])
    report = house.run(KEYS[0])
    assert (report.state, report.outputs["verdict"]) == ("held", "hold")
    assert "no reference" in report.reason
    (entry,) = house.records.audit.entries("shop", action="drift.judged")
    assert entry.details["verdict"] == "hold"


def test_the_partition_before_is_the_reference_and_marked_so(house: House) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1])
    report = house.run(KEYS[1])
    assert (report.state, report.outputs["verdict"]) == ("done", "pass"), report.reason
    assert report.outputs["reference"] == {"kind": "before", "partition": KEYS[0], "version": None}
    assert set(report.outputs["features"]) == {"amount", "kind", "channel"}
    page = Path(report.outputs["report"]).read_text()
    assert f"against the partition before, {KEYS[0]}" in page
    assert 'href="drift-spend.html"' in page
    assert 'href="drift-visits.html"' in page
    assert house.run(KEYS[1]).reused


def test_a_shift_is_drift_and_names_the_feature(house: House) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1], mean=60)
    report = house.run(KEYS[1])
    assert (report.state, report.outputs["verdict"]) == ("done", "drift")
    assert report.outputs["reasons"][0].startswith("amount: PSI ")
    assert len(report.outputs["reasons"]) == 1


def test_the_opponents_sample_is_the_reference_if_it_is_older(house: House) -> None:
    """The days drift slowly: each is like the one before, and far from the sample of the
    champion.
    """
    for number, key in enumerate(KEYS[:4]):
        house.day(key, mean=50 + 5 * number)
    house.model(1, KEYS[0])
    house.record(KEYS[3], "evaluate_model", {"verdict": "pass", "opponent": 1})
    report = house.run(KEYS[3])
    assert report.outputs["reference"] == {"kind": "opponent", "partition": KEYS[0], "version": 1}
    assert report.outputs["verdict"] == "drift"


@pytest.mark.parametrize("trained_on", [KEYS[2], KEYS[4]])
def test_an_opponent_of_the_same_or_a_newer_partition_is_no_reference(
    house: House, trained_on: str
) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1])
    house.model(1, trained_on)
    house.day(KEYS[2], opponent=1)
    assert house.run(KEYS[2]).outputs["reference"]["kind"] == "before"


def test_event_views_compare_new_rows_with_those_of_the_training_window(house: House) -> None:
    """The reference sample says `x` alone, but the rows of the window are x and y like today's:
    no drift in channel.
    """
    for key in KEYS[:3]:
        house.day(key)
    house.model(1, KEYS[1])
    house.record(KEYS[2], "evaluate_model", {"verdict": "pass", "opponent": 1})
    assert house.run(KEYS[2]).outputs["features"]["channel"]["psi"] < 0.1
    house.day(KEYS[3], channels="z", opponent=1)
    report = house.run(KEYS[3])
    assert report.outputs["reference"]["kind"] == "opponent"
    assert report.outputs["reasons"] == [
        f"channel: PSI {report.outputs['features']['channel']['psi']:.3f} is above 0.2"
    ]


@pytest.mark.parametrize("churn", [0.0, 0.015, 0.05])
@pytest.mark.parametrize("sampled", ["with who is there", "as before"])
def test_customers_who_leave_are_no_drift_and_are_counted(
    house: House, churn: float, sampled: str
) -> None:
    """A hundred days of one distribution, a share of the customers replaced each day: no alarm,
    and a true shift is one.
    """
    from types import SimpleNamespace

    from deltalake import write_deltalake

    from include.features import population
    from include.monitoring import psi
    from include.point_in_time import partitions

    rng, people, view = np.random.default_rng(4), 400, house.feature_set.views[0]
    there, newest, days = np.arange(people), people, []
    first = datetime(2026, 1, 1, tzinfo=UTC)
    for day in range(100):
        gone = rng.random(people) < churn
        there = np.where(gone, newest + np.cumsum(gone), there)
        newest += int(gone.sum())
        mean = 60.0 if day == 99 else 50.0
        times = pa.array([first + timedelta(days=day + 1)] * people, TIMESTAMP)
        columns = {"amount": rng.normal(mean, 10, people), "kind": rng.choice(["a", "b"], people)}
        rows = pa.table(
            {"customer_id": there, "event_timestamp": times, "created_timestamp": times, **columns}
        ).cast(view.schema)
        key = (first + timedelta(days=day)).date().isoformat()
        days.append(rows.append_column("partition", pa.array([key] * people)))
    table = f"{house.settings.lake_root}/{view.table('shop')}"
    write_deltalake(table, pa.concat_tables(days), partition_by=["partition"], mode="overwrite")
    house.model(1, "2026-01-21")
    model = house.records.models.get("shop", 1)
    assert model is not None
    as_of = partitions.period(house.use_case, "2026-01-21").as_of
    sample = population.population_at(house.lake, house.use_case, house.feature_set, as_of)
    if sampled == "as before":  # every entity ever seen, null where its view had expired
        sample = population.entity_frame_at(house.lake, house.use_case, house.feature_set, as_of)
    model.manifest["reference"] = {
        "path": str(house.settings.home / "sample.parquet"),
        "rows": len(sample),
    }
    pq.write_table(sample, house.settings.home / "sample.parquet")
    reference = check_drift.Reference("2026-01-21", house.feature_set, model)
    found = {}
    for day in (21, 40, 70, 98, 99):
        key = (first + timedelta(days=day)).date().isoformat()
        context: Any = SimpleNamespace(use_case=house.use_case, lake=house.lake, key=key)
        sides = check_drift.sides_of(context, reference)
        index = psi.stability(sides.reference["spend"], sides.current["spend"], view.columns)
        found[day] = max(one.psi or 0.0 for one in index.values())
        alive = sides.counted()["spend"]
        assert people <= alive["current"] <= people * (1 + 4 * churn), (
            "who left is there until the ttl ends, no longer"
        )
        stayed = (1 - churn) ** (day - 20)
        assert alive["lost"] == pytest.approx(1 - stayed, abs=0.1)
    assert max(found[day] for day in (21, 40, 70, 98)) < 0.2 < found[99], found


def test_a_lost_sample_is_never_a_pass_and_is_looked_at_again(house: House) -> None:
    house.day(KEYS[0])
    house.model(1, KEYS[0])
    sample = house.settings.home / "reference-1.parquet"
    kept = sample.read_bytes()
    sample.write_bytes(b"PAR1")
    house.day(KEYS[1], opponent=1)
    report = house.run(KEYS[1])
    assert (report.state, report.outputs["verdict"]) == ("unreadable", "hold")
    assert "cannot be read" in report.reason
    sample.write_bytes(kept)
    report = house.run(KEYS[1])
    assert (report.state, report.reused) == ("done", False)
    assert house.run(KEYS[1]).reused


def test_not_computable_is_a_hold_unless_something_drifts() -> None:
    known, unknown = Stability(0.01, 10), Stability(None, 0, note="fewer than 50 rows on a side")
    assert check_drift.judge({"a": known}, 0.2) == ("pass", [])
    assert check_drift.judge({"a": known, "b": unknown}, 0.2) == (
        "hold",
        ["b: not computable, fewer than 50 rows on a side"],
    )
    assert check_drift.judge({"a": Stability(0.21, 10), "b": unknown}, 0.2)[0] == "drift"
    assert check_drift.judge({"a": Stability(0.2, 10)}, 0.2)[0] == "pass"
    assert check_drift.judge({}, 0.2)[0] == "hold"


def test_a_partition_that_is_not_judged_waits(house: House) -> None:
    house.records.partitions.raise_to(
        "shop", KEYS[0], mode="backfill", target="judged", actor="test", at=AT
    )
    with pytest.raises(MissingPartition, match="evaluate_model is not done"):
        house.run(KEYS[0])


def test_a_report_that_fails_changes_no_verdict(house: House) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1])
    path = house.settings.home / "reports" / "shop" / KEYS[1]
    path.parent.mkdir(parents=True)
    path.write_text("a file stands where the folder should be")
    report = house.run(KEYS[1])
    assert (report.outputs["verdict"], report.outputs["report"]) == ("pass", None)


def written(
    path: Path, side: dict[str, pa.Array], kinds: dict[str, str], told: dict[str, Any]
) -> str:
    """Write a report in which both sides are the same rows; return its page."""
    use_case = find("shop", [path.parent])
    rows = {"spend": pa.table(side)}
    drift_report.write_report(
        path, use_case, KEYS[0], "live", told, reference=rows, current=rows, kinds=kinds
    )
    return path.read_text()


def verdict(features: dict[str, Stability], **more: Any) -> dict[str, Any]:
    told = {
        "verdict": "pass",
        "reasons": [],
        "limit": 0.2,
        "features": {name: one.as_json() for name, one in features.items()},
    }
    return {**told, "reference": {"kind": "opponent", "partition": KEYS[0], "version": 3}, **more}


def test_the_report_escapes_what_data_says_and_survives_what_it_holds(tmp_path: Path) -> None:
    """Fault 58, and what breaks Evidently: infinities, columns without a value, numbers whose
    sums overflow.
    """
    attack = "</script><script>alert(1)</script>"
    (tmp_path / "shop.yaml").write_text(YAML + f"title: '{attack}'\n")
    rows = 300
    side = {
        "amount": pa.array([float("inf"), -float("inf"), float("nan"), 1.0, 2.0] * (rows // 5)),
        "nothing": pa.array([None] * rows, pa.float64()),
        "constant": pa.array([7.0] * rows),
        "huge": pa.array([1e308, -1e308, 0.0] * (rows // 3)),
        "kind": pa.array([attack, "=cmd|x", None] * (rows // 3)),
        "flag": pa.array([True, None, False] * (rows // 3)),
    }
    kinds = dict.fromkeys(side, "string") | dict.fromkeys(
        ("amount", "nothing", "constant", "huge"), "float64"
    )
    told = verdict({attack: Stability(0.1, 3, note=attack)}, verdict="drift", reasons=[attack])
    page = written(tmp_path / "drift.html", side, kinds, told)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)") == 5, "title, heading, reason, feature and note"
    drawn = (tmp_path / "drift-spend.html").read_text()
    assert "Data Drift" in drawn or "evidently" in drawn.lower()
    assert "<script>alert(1)" not in drawn


def test_the_page_says_what_drifted_by_how_much_and_against_what(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(YAML + "title: Who buys?\n")
    features = {
        "calm": Stability(0.05, 10, 0.0, 0.25, 0.5),
        "moved": Stability(0.4, 10, 0.0, 0.0),
        "unknown": Stability(None, 0, note="fewer than 50 rows on a side"),
    }
    told = verdict(features, verdict="drift", reasons=["moved: PSI 0.400 is above 0.2"])
    page = written(
        tmp_path / "drift.html", {"moved": pa.array([1.0, 2.0] * 60)}, {"moved": "float64"}, told
    )
    assert "Who buys?" in page
    assert f"partition {KEYS[0]} (live), against the opponent, version 3 of {KEYS[0]}" in page
    assert "<li>moved: PSI 0.400 is above 0.2</li>" in page
    assert page.index(">moved<") < page.index(">unknown<") < page.index(">calm<")
    assert 'class="bar over" style="width:100.0%"' in page
    assert 'class="bar" style="width:12.5%"' in page
    assert page.count('<i style="left:50.0%">') == 3, "the limit of 0.2 on a scale up to 0.4"
    assert "25.0%</td><td class=n>50.0%" in page
    assert 'href="drift-spend.html"' in page
    assert (tmp_path / "drift-spend.html").is_file()


def test_a_hold_without_a_reference_has_a_page_that_says_so(house: House) -> None:
    house.day(KEYS[0])
    page = Path(house.run(KEYS[0]).outputs["report"]).read_text()
    assert "no reference: no opponent of an older partition" in page
    assert "Population stability" not in page


def test_a_page_that_cannot_be_drawn_still_has_the_indices(tmp_path: Path) -> None:
    """Whole numbers so large that no ten bins fit between them stop the drawing; a page of an
    earlier run goes with it.
    """
    (tmp_path / "shop.yaml").write_text(YAML)
    (tmp_path / "drift-spend.html").write_text("of an earlier run")
    told = verdict({"amount": Stability(0.1234, 3)})
    page = written(
        tmp_path / "drift.html",
        {"amount": pa.array([1e17, 1e17 + 16] * 100)},
        {"amount": "float64"},
        told,
    )
    assert "0.1234" in page
    assert "could not be drawn" in page
    assert "href=" not in page
    assert not (tmp_path / "drift-spend.html").exists()


def test_predictions_are_imported_once_by_the_day_of_the_answer(house: House) -> None:
    def answer(log: PredictionLog, number: int, at: str) -> None:
        log.append(
            Prediction(
                f"r{number}",
                at,
                1,
                "sha256:1",
                "champion",
                str(number),
                0.5,
                "accept",
                "",
                "fs",
                at,
                "{}",
                900,
            )
        )

    def imported() -> int:
        return import_segments.import_closed(house.settings, house.lake, house.records, "shop")

    assert imported() == 0
    log = PredictionLog(house.settings.home, "shop")
    for number in range(6):
        answer(log, number, f"2026-01-0{1 + number // 4}T12:00:0{number}Z")
    log.close()
    kept = {
        segment.path: segment.path.read_bytes()
        for segment in prediction_log.closed_segments(house.settings.home, "shop")
    }
    assert imported() == 6
    first = digest(house.lake.read("shop/predictions"), sort_by=["request_id"])
    assert house.lake.keys("shop/predictions") == ["2026-01-01", "2026-01-02"]
    assert not any(path.exists() for path in kept)
    for path, content in kept.items():  # killed between the commit and the removal of the segment
        path.write_bytes(content)
    imported()
    assert digest(house.lake.read("shop/predictions"), sort_by=["request_id"]) == first
    answer(log, 9, "2026-01-01T23:59:59Z")
    log.close()
    assert imported() == 1
    assert len(house.lake.read("shop/predictions")) == 7
