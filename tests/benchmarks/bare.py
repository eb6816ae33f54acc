"""One day's chain as a competent script would write it: the libraries' own calls, in one warm
process, for the same result.

It works on a linked copy of the installation's lake and keeps no record: no lease, no digest, no
memo, no audit row, no refusal. What it reads, and its sizes, rounds and parameters, are those of
the stage beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError

from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.features.feature_sets import current
from include.models.lightgbm_fitting import parameters
from include.point_in_time import partitions
from include.simulation.streams import arrivals
from include.validation.expectations import limits

SQL = ROOT / "feature_repo" / "sql"
TYPES = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
}
SHIPPED = {
    "service.py": "include/packaging/bento/service.py",
    # The name by which nodes of every version start it.
    "lane.py": "include/packaging/bento/worker.py",
    **{
        path: path
        for path in (
            "include/__init__.py",
            "include/errors.py",
            "include/models/__init__.py",
            "include/models/bundle.py",
            "include/models/calibration.py",
            "include/models/encoding.py",
            "include/models/golden.py",
            "include/models/kinds.py",
            "include/models/lightgbm_kind.py",
            "include/models/loading.py",
            "include/models/predictor.py",
        )
    },
}


class Script:
    """The script's folders and what one stage leaves for the next."""

    def __init__(self, settings: Settings, use_case: UseCase, home: Path) -> None:
        self.settings, self.use_case, self.home = settings, use_case, home
        self.lake = home / "lake" / use_case.name
        self.views = {view.name: view for view in current(use_case).views}
        self.mlflow = f"sqlite:///{home / 'mlflow.db'}"
        self.feast: Any = None

    def copy_lake(self) -> None:
        """Link the lake's files (they never change once written) into the script's own folder."""
        source = Path(self.settings.lake_root) / self.use_case.name
        if self.lake.exists():
            shutil.rmtree(self.lake)
        shutil.copytree(source, self.lake, copy_function=os.link)
        for folder in [
            *self.lake.glob("curated/*@*"),
            *self.lake.glob("labels@*"),
            *self.lake.glob("training_set@*"),
        ]:
            # The script knows no digests of columns.
            folder.rename(folder.with_name(folder.name.split("@")[0]))

    def read_source(self, key: str) -> dict[str, pa.Table]:
        """Read each source's rows of a day."""
        period = partitions.period(self.use_case, key)
        return {
            name: arrivals(
                source.simulator.stream,
                period.arrival_start,
                period.as_of,
                seed=self.settings.seed,
                customers=source.simulator.customers,
                start=self.use_case.history.first,
            )
            for name, source in self.use_case.sources.items()
            if source.simulator is not None
        }

    def ingest_data(self, key: str) -> dict[str, int]:
        """Read the sources, write the events of the day; the master data only if it has changed."""
        period, counts = partitions.period(self.use_case, key), {}
        for name, received in self.read_source(key).items():
            static = self.use_case.sources[name].kind == "static"
            columns = {
                column: received.column(column).cast(pa.string())
                for column in received.column_names
            }
            table = self.lake / "raw" / name
            if static:
                rows = pa.table(columns)
                stored = self._read(f"raw/{name}", columns=rows.column_names)
                order = [(self.use_case.sources[name].key[0], "ascending")]
                if stored is not None and stored.sort_by(order).equals(rows.sort_by(order)):
                    continue
            else:
                moment = columns["created_timestamp"].to_pandas()
                at = pd.to_datetime(moment, utc=True, format="ISO8601", errors="coerce")
                columns["arrived_at"] = pa.array(
                    at.fillna(pd.Timestamp(period.arrival_start)).astype("datetime64[us, UTC]")
                )
            columns["source_file"] = pa.array([f"simulator:{name}"] * len(received))
            columns["source_row"] = pa.array(np.arange(1, len(received) + 1))
            _write(table, key, pa.table(columns))
            counts[name] = len(received)
        return counts

    def validate_data(self, key: str) -> dict[str, int]:
        """Type, judge and de-duplicate the events, profile them, run Great Expectations, write
        both sides, then labels.
        """
        period, counts = partitions.period(self.use_case, key), {}
        profile: dict[str, float | None] = {limit.column: None for limit in limits(self.use_case)}
        with _connect() as con:
            for name, source in self.use_case.sources.items():
                if source.kind == "static":
                    continue
                self._scan(con, "raw", f"raw/{name}", [key])
                con.execute(
                    "CREATE OR REPLACE TEMP TABLE judged AS "
                    f"{_judged(source, period.as_of.isoformat())}"
                )
                good = con.sql(
                    "SELECT * EXCLUDE (rule, copy) FROM judged WHERE rule IS NULL AND copy = 1"
                ).to_arrow_table()
                bad = con.sql(
                    "SELECT raw.*, rule FROM raw JOIN judged USING (source_row) WHERE rule "
                    "IS NOT NULL"
                ).to_arrow_table()
                rules = dict(
                    con.execute(
                        "SELECT rule, count(*) FROM judged WHERE rule IS NOT NULL GROUP BY 1"
                    ).fetchall()
                )
                total = con.execute("SELECT count(*) FROM judged").fetchall()[0][0]
                profile |= _profile(name, source, total, len(bad), rules)
                _write(self.lake / "curated" / name, key, good.drop_columns(["source_row"]))
                _write(self.lake / "quarantine" / name, key, bad)
                counts[name] = len(good)
        _expect(
            self.use_case,
            {name: value for name, value in profile.items() if value is not None},
            self.home / "docs.html",
        )
        counts["labels"] = self._labels(key)
        return counts

    def _labels(self, key: str) -> int:
        period = partitions.period(self.use_case, key)
        with _connect() as con:
            self._known(con, "instalments", key, self.use_case.label.lookback, period.as_of)
            con.execute(f"SET VARIABLE as_of = TIMESTAMPTZ '{period.as_of.isoformat()}'")
            sql = (SQL / str(self.use_case.label.sql)).read_text()
            rows = con.sql(
                f"SELECT *, label_timestamp AS created_timestamp FROM ({sql}) WHERE "
                f"label_timestamp >= TIMESTAMPTZ '{period.arrival_start.isoformat()}' ORDER BY "
                "account_id, event_timestamp"
            ).to_arrow_table()
        _write(self.lake / "labels", key, rows)
        return len(rows)

    def materialize_features(self, key: str) -> dict[str, int]:
        """Run the feature SQL over the curated files, write the rows, and bring the newest ones
        online.
        """
        period, counts = partitions.period(self.use_case, key), {}
        with _connect() as con:
            con.execute(f"SET VARIABLE as_of = TIMESTAMPTZ '{period.as_of.isoformat()}'")
            for name in ("instalments", "contacts"):
                self._known(con, name, key, self.views["behaviour"].lookback, period.as_of)
            self._scan(con, "accounts", "curated/accounts", None)
            for name, view in self.views.items():
                moment = f"TIMESTAMPTZ '{period.as_of.isoformat()}'"
                columns = ", ".join(
                    f"CAST({column} AS {TYPES[kind]}) AS {column}"
                    for column, kind in view.columns.items()
                )
                rows = con.sql(
                    f"SELECT {view.key}, {moment} AS event_timestamp, {moment} AS "
                    f"created_timestamp, {columns} FROM "
                    f"({(SQL / f'{self.use_case.name}/{name}.sql').read_text()}) ORDER BY 1"
                ).to_arrow_table()
                _write(self._view(name), key, rows)
                counts[name] = len(rows)
        self._online(key)
        return counts

    def _online(self, key: str) -> None:
        """Write the newest row of each entity: packed, and to Feast's table if it is asked for."""
        import feast
        from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
        from feast.repo_config import RepoConfig

        from include.features.feast_registry import objects, view_name

        if self.feast is None:
            config = RepoConfig(
                project="script",
                provider="local",
                registry=str(self.home / "feast.db"),
                online_store=SqliteOnlineStoreConfig(path=str(self.home / "online.db")),
                entity_key_serialization_version=3,
            )
            self.feast = feast.FeatureStore(config=config)
            self.feast.apply(objects(self.use_case, current(self.use_case)))
        frames = {name: self._newest(name, key) for name in self.views}
        for name, frame in frames.items() if self.use_case.online.feast else ():
            self.feast.write_to_online_store(
                view_name(self.use_case.name, name), frame.to_pandas(types_mapper=pd.ArrowDtype)
            )
        first, *others = (
            frame.drop_columns(["event_timestamp", "created_timestamp"])
            for frame in frames.values()
        )
        for other in others:
            first = first.join(other, first.column_names[0], join_type="full outer")
        columns = [column.to_pylist() for column in first.columns]
        with sqlite3.connect(self.home / "packed.db") as con:
            con.execute(
                "CREATE TABLE IF NOT EXISTS rows (entity TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID"
            )
            con.execute("DELETE FROM rows")
            con.executemany(
                "INSERT INTO rows VALUES (?, ?)",
                (
                    (str(entity), msgspec.msgpack.encode(values))
                    for entity, *values in zip(*columns, strict=True)
                ),
            )

    def train_model(self, key: str) -> dict[str, int]:
        """Take the mature labels, have Feast join the features, train, compare with a logistic
        regression, log, register.
        """
        import lightgbm
        import mlflow
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score

        from include.features.feast_offline_store import pinned
        from include.features.feast_registry import service_name, transient_store

        use_case, training = self.use_case, self.use_case.training
        as_of = partitions.period(use_case, key).as_of
        spine = self._spine(as_of)
        settings = self.settings.model_copy(update={"lake_uri": str(self.lake.parent)})
        store = transient_store(settings, use_case, current(use_case))
        with pinned({}):
            frame = store.get_historical_features(
                entity_df=spine[["account_id", "event_timestamp"]],
                features=store.get_feature_service(service_name(use_case.name)),
                filter_by_created_timestamp=True,
            ).to_df()
        frame["label"] = spine["label"].to_numpy()
        count, split = len(frame), training.split
        evaluation = int(count * (1 - split.evaluation))
        tune = int(evaluation - count * split.tune)
        frame["split"] = (
            ["train"] * tune
            + ["tune"] * (evaluation - tune)
            + ["evaluation"] * (count - evaluation)
        )
        _write(self.lake / "training_set", key, pa.Table.from_pandas(frame, preserve_index=False))
        names = use_case.trained_features
        texts = [name for name in names if use_case.feature_types[name] == "string"]
        matrix = frame[names].copy()
        for name in texts:
            matrix[name] = matrix[name].astype("category").cat.codes
        values, labels = matrix.to_numpy(dtype=float), frame["label"].to_numpy()
        params, places = parameters(use_case), [names.index(name) for name in texts]
        data = lightgbm.Dataset(
            values[:tune], labels[:tune], categorical_feature=places or "auto", params=params
        )
        held = lightgbm.Dataset(
            values[tune:evaluation], labels[tune:evaluation], reference=data, params=params
        )
        stop = lightgbm.early_stopping(training.early_stopping, verbose=False)
        booster = lightgbm.train(params, data, training.rounds, valid_sets=[held], callbacks=[stop])
        metrics = {
            "auc": float(roc_auc_score(labels[evaluation:], booster.predict(values[evaluation:])))
        }
        numeric = frame[[name for name in names if name not in texts]].astype(float)
        numeric = ((numeric - numeric[:tune].mean()) / numeric[:tune].std().replace(0, 1)).clip(
            -10, 10
        )
        design = pd.concat(
            [
                numeric.fillna(0),
                numeric.isna().astype(float),
                pd.get_dummies(frame[texts], dtype=float),
            ],
            axis=1,
        )
        plain = LogisticRegression(solver="newton-cholesky").fit(
            design[:tune].to_numpy(), labels[:tune]
        )
        metrics["plain_auc"] = float(
            roc_auc_score(
                labels[evaluation:], plain.predict_proba(design[evaluation:].to_numpy())[:, 1]
            )
        )
        bundle = self.home / "models" / key
        bundle.mkdir(parents=True, exist_ok=True)
        booster.save_model(str(bundle / "model.txt"), num_iteration=booster.best_iteration)
        pq.write_table(self._sample(key), bundle / "reference.parquet", compression="zstd")
        mlflow.set_tracking_uri(self.mlflow)
        mlflow.set_registry_uri(self.mlflow)
        if mlflow.get_experiment_by_name("script") is None:
            mlflow.create_experiment("script", (self.home / "mlartifacts").as_uri())
        mlflow.set_experiment("script")
        with mlflow.start_run(run_name=key) as run:
            mlflow.log_params({**params, "rounds": booster.best_iteration})
            mlflow.log_metrics(metrics)
            signature = mlflow.models.infer_signature(values[:5], np.zeros(5))
            mlflow.lightgbm.log_model(
                booster,
                name="model",
                signature=signature,
                registered_model_name="script",
                pip_requirements=["lightgbm", "numpy"],
            )
        self.run_id = run.info.run_id
        self.evaluated = frame[evaluation:], values[evaluation:]
        return {"rows": count, "rounds": int(booster.best_iteration)}

    def _spine(self, as_of: Any) -> pd.DataFrame:
        now, label = f"TIMESTAMPTZ '{as_of.isoformat()}'", self.use_case.label
        window = self.use_case.training.window or timedelta(days=36500)
        with _connect() as con:
            self._scan(con, "labels", "labels", None)
            return con.sql(
                "SELECT account_id, event_timestamp, label FROM labels WHERE created_timestamp < "
                f"{now} AND event_timestamp + INTERVAL {int(label.delay.total_seconds())} SECOND "
                f"< {now} AND event_timestamp >= {now} - INTERVAL {int(window.total_seconds())} "
                "SECOND AND label IS NOT NULL QUALIFY row_number() OVER (PARTITION BY "
                "account_id, event_timestamp ORDER BY created_timestamp DESC) = 1 ORDER BY "
                "event_timestamp, account_id"
            ).df()

    def evaluate_model(self, key: str) -> dict[str, int]:
        """Score the rows that were held back, compute the metrics with their interval, log them,
        write a page.
        """
        import lightgbm
        import mlflow
        from sklearn.calibration import calibration_curve
        from sklearn.metrics import roc_auc_score, roc_curve

        frame, values = self.evaluated
        stored = self._read("training_set", [key])
        assert stored is not None
        labels = frame["label"].to_numpy()
        scores = lightgbm.Booster(model_file=str(self.home / "models" / key / "model.txt")).predict(
            values, num_threads=1
        )
        found = {"evaluation_auc": float(roc_auc_score(labels, scores))}
        false, true, _ = roc_curve(labels, scores)
        observed, expected = calibration_curve(labels, scores, n_bins=10, strategy="quantile")
        found["evaluation_calibration"] = float(np.abs(observed - expected).max())
        mlflow.MlflowClient(self.mlflow).log_batch(
            self.run_id,
            metrics=[mlflow.entities.Metric(name, value, 0, 0) for name, value in found.items()],
        )
        points = " ".join(
            f"{300 * x:.1f},{300 * (1 - y):.1f}"
            for x, y in zip(false[::50], true[::50], strict=True)
        )
        curve = " ".join(
            f"{300 * x:.1f},{300 * (1 - y):.1f}" for x, y in zip(expected, observed, strict=True)
        )
        body = (
            f"<pre>{json.dumps(found)}</pre><svg><polyline points='{points}'/><polyline "
            f"points='{curve}'/></svg>"
        )
        (self.home / "evaluation.html").write_text(
            f"<!doctype html><html><body>{body}</body></html>"
        )
        return {"rows": len(frame)}

    def package_model(self, key: str, bundle: Path, digest: str, version: int) -> dict[str, int]:
        """Build a Bento of the bundle, serve it, ask it the golden rows, export it."""
        import bentoml

        name = f"v{key.replace('-', '')}"
        context = self.home / "context"
        for target, path in SHIPPED.items():
            (context / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, context / target)
        (context / "requirements.txt").write_text("lightgbm\nnumpy\n")
        with bentoml.models.create(f"script_model:{name}") as model:
            shutil.copytree(bundle, model.path_of("bundle"))
        bento = bentoml.build(
            "service:Scorer",
            build_ctx=str(context),
            include=["*.py", "include/**/*.py"],
            name="script_scorer",
            version=name,
            python={"requirements_txt": "requirements.txt", "lock_packages": False},
            args={"model": str(model.tag), "digest": digest, "version": version},
        )
        golden = json.loads((bundle / "golden.json").read_text())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            name: value for name, value in os.environ.items() if name != "PYTHONPATH"
        } | {"SPT_NOENV": "1"}
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bentoml",
                "serve",
                str(bento.tag),
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            env=environment,
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await(f"http://127.0.0.1:{port}/readyz", server)
            for row, score in zip(golden["rows"], golden["scores"], strict=True):
                assert abs(_ask(f"http://127.0.0.1:{port}/predict", row) - score) < 1e-9
        finally:
            server.terminate()
            server.wait(timeout=30)
        export = self.home / "exports" / f"{name}.bento"
        export.parent.mkdir(exist_ok=True)
        export.unlink(missing_ok=True)
        bentoml.export_bento(str(bento.tag), str(export))
        return {"golden": len(golden["rows"])}

    def check_drift(self, key: str) -> dict[str, int]:
        """Compute the index of every feature against the day before, and Evidently's page of a
        sample.
        """
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        before = partitions.earlier(self.use_case, key)
        assert before is not None
        count = 0
        for name, view in self.views.items():
            sides = [
                self._newest(name, day).select(list(view.columns)).to_pandas()
                for day in (before, key)
            ]
            for column, kind in view.columns.items():
                _stability(*(side[column] for side in sides), numeric=kind in ("int64", "float64"))
                count += 1
            numbers = [
                column for column, kind in view.columns.items() if kind in ("int64", "float64")
            ]
            definition = DataDefinition(
                numerical_columns=numbers,
                categorical_columns=[column for column in view.columns if column not in numbers],
            )
            rows = self.use_case.monitoring.report_rows
            step = [
                np.linspace(0, len(side) - 1, min(rows, len(side))).astype(int) for side in sides
            ]
            sampled = [
                side.iloc[chosen].reset_index(drop=True)
                for side, chosen in zip(sides, step, strict=True)
            ]
            for side in sampled:
                side[numbers] = side[numbers].astype(float)
            shown = [
                Dataset.from_pandas(side, data_definition=definition) for side in reversed(sampled)
            ]
            snapshot = Report([DataDriftPreset(method="psi")]).run(*shown)
            (self.home / f"drift-{name}.html").write_text(
                str(snapshot.get_html_str(as_iframe=False))
            )
        return {"features": count}

    def _sample(self, key: str) -> pa.Table:
        rows = None
        for name in self.views:
            newest = self._newest(name, key).drop_columns(["created_timestamp"])
            rows = (
                newest
                if rows is None
                else rows.join(newest.drop_columns(["event_timestamp"]), "account_id")
            )
        assert rows is not None
        return rows.take(
            pa.array(
                np.random.default_rng(0).permutation(len(rows))[: self.use_case.monitoring.sample]
            )
        )

    def _newest(self, name: str, key: str) -> pa.Table:
        """Return the newest row of each entity within the view's ttl."""
        view = self.views[name]
        now = f"TIMESTAMPTZ '{partitions.period(self.use_case, key).as_of.isoformat()}'"
        keys = partitions.lookback(self.use_case, key, view.ttl)
        with _connect() as con:
            self._scan(con, "rows", str(self._view(name).relative_to(self.lake)), keys)
            newest = (
                f"(SELECT {view.key}, max(event_timestamp) FROM rows WHERE event_timestamp "
                f"<= {now} GROUP BY 1)"
            )
            return con.sql(
                f"SELECT * EXCLUDE (partition) FROM rows WHERE ({view.key}, event_timestamp) IN "
                f"{newest} ORDER BY 1"
            ).to_arrow_table()

    def _known(
        self, con: duckdb.DuckDBPyConnection, name: str, key: str, lookback: timedelta, as_of: Any
    ) -> None:
        """Load the newest correction of every event of the last `lookback`."""
        source = self.use_case.sources[name]
        self._scan(
            con,
            f"{name}_files",
            f"curated/{name}",
            partitions.lookback(self.use_case, key, lookback),
        )
        since = f"TIMESTAMPTZ '{(as_of - lookback).isoformat()}'"
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM {name}_files WHERE "
            f"event_timestamp >= {since} QUALIFY row_number() OVER (PARTITION BY "
            f"{', '.join(source.key)} ORDER BY created_timestamp DESC) = 1"
        )

    def _view(self, name: str) -> Path:
        return self.lake.parent / self.views[name].table(self.use_case.name)

    def _scan(
        self, con: duckdb.DuckDBPyConnection, name: str, table: str, keys: list[str] | None
    ) -> None:
        wanted = ", ".join(f"'{key}'" for key in keys or ())
        files = DeltaTable(self.lake / table).file_uris(
            file_pruning_predicate=f"partition IN ({wanted})" if keys else None
        )
        listed = ", ".join(f"'{file}'" for file in files)
        con.execute(
            f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM read_parquet([{listed}], "
            "hive_partitioning = true, hive_types = {'partition': VARCHAR}, "
            "union_by_name = true)"
        )

    def _read(
        self, table: str, keys: list[str] | None = None, columns: list[str] | None = None
    ) -> pa.Table | None:
        try:
            with _connect() as con:
                self._scan(con, "rows", table, keys)
                return con.sql(
                    f"SELECT {', '.join(columns) if columns else '*'} FROM rows"
                ).to_arrow_table()
        except TableNotFoundError:
            return None


def _connect() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config={"threads": 2})
    con.execute("SET TimeZone = 'UTC'")
    return con


def _write(table: Path, key: str, rows: pa.Table) -> None:
    rows = rows.drop_columns(["partition"]) if "partition" in rows.column_names else rows
    rows = rows.append_column("partition", pa.array([key] * len(rows), pa.string()))
    options: dict[str, Any] = (
        {"predicate": f"partition = '{key}'", "schema_mode": "merge"}
        if (table / "_delta_log").exists()
        else {}
    )
    write_deltalake(table, rows, mode="overwrite", partition_by=["partition"], **options)


def _judged(source: Source, as_of: str) -> str:
    """Return the query that types raw text, names the first rule a row fails, and numbers equal
    rows.
    """
    names = {name: column.type for name, column in source.columns.items()}
    names |= {"event_timestamp": "timestamp", "created_timestamp": "timestamp"}
    typed = ", ".join(
        f"try_cast({name} AS {TYPES[kind]}) AS {name}" for name, kind in names.items()
    )
    raw = ", ".join(f"{name} AS raw_{name}" for name in names)
    rules = [
        f"WHEN raw_{name} IS NOT NULL AND {name} IS NULL THEN '{name}: type'" for name in names
    ]
    for name, column in source.columns.items():
        rules += [] if column.nullable else [f"WHEN {name} IS NULL THEN '{name}: null'"]
        rules += [] if column.min is None else [f"WHEN {name} < {column.min} THEN '{name}: min'"]
        rules += [] if column.max is None else [f"WHEN {name} > {column.max} THEN '{name}: max'"]
        if column.values is not None:
            listed = ", ".join(f"'{value}'" for value in column.values)
            rules.append(f"WHEN raw_{name} NOT IN ({listed}) THEN '{name}: value'")
    rules += [
        f"WHEN {name} IS NULL OR {name} >= TIMESTAMPTZ '{as_of}' THEN '{name}: time'"
        for name in ("event_timestamp", "created_timestamp")
    ]
    return (
        f"WITH typed AS (SELECT source_row, {typed}, {raw} FROM raw) SELECT source_row, "
        f"{', '.join(names)}, CASE {' '.join(rules)} END AS rule, row_number() OVER (PARTITION BY "
        f"{', '.join(names)} ORDER BY source_row) AS copy FROM typed"
    )


def _profile(
    name: str, source: Source, total: int, bad: int, rules: dict[str, int]
) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        f"{name}: columns missing": 0,
        f"{name}: rows": total,
        f"{name}: share of bad rows": bad / max(total, 1),
        f"{name}: share of conflicting duplicates": 0.0,
    }
    for column in source.columns:
        wrong = sum(count for rule, count in rules.items() if rule.startswith(f"{column}: "))
        found[f"{name}.{column}: share of bad values"] = wrong / max(total, 1)
    return found


def _expect(use_case: UseCase, profile: dict[str, float | None], page: Path) -> None:
    """Run the suite of the use case's limits on the profile and draw its page."""
    import great_expectations as gx
    from great_expectations import expectations as gxe
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = (
        context.data_sources.add_pandas("profile")
        .add_dataframe_asset("profile")
        .add_batch_definition_whole_dataframe("all")
    )
    wanted = [limit for limit in limits(use_case) if limit.column in profile]
    suite = gx.ExpectationSuite(
        name="profile",
        expectations=[
            gxe.ExpectColumnValuesToBeBetween(
                column=limit.column, min_value=limit.low, max_value=limit.high
            )
            for limit in wanted
        ],
    )
    result = batch.get_batch({"dataframe": pd.DataFrame([profile])}).validate(suite)
    page.write_text(
        str(DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result)))
    )


def _stability(reference: pd.Series, present: pd.Series, *, numeric: bool) -> float:
    if numeric:
        one, two = reference.to_numpy(dtype=float), present.to_numpy(dtype=float)
        edges = (
            np.unique(np.nanquantile(one, np.linspace(0, 1, 11)[1:-1]))
            if np.isfinite(one).any()
            else np.empty(0)
        )
        counts = [
            np.append(
                np.bincount(
                    np.searchsorted(edges, side[~np.isnan(side)], "right"), minlength=len(edges) + 1
                ),
                np.isnan(side).sum(),
            )
            for side in (one, two)
        ]
    else:
        both = [side.fillna("").value_counts() for side in (reference, present)]
        names = both[0].index.union(both[1].index)
        counts = [side.reindex(names, fill_value=0).to_numpy() for side in both]
    p, q = (np.maximum(side / max(side.sum(), 1), 1e-4) for side in counts)
    return float(np.sum((q - p) * np.log(q / p)))


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


def _ask(url: str, row: dict[str, Any]) -> float:
    request = urllib.request.Request(
        url, json.dumps({"features": row}).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=15) as answer:
        return float(json.loads(answer.read())["score"])
