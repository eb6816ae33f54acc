"""A small installation that serves, without the stages before: it records what they would have.

It has bundles, judged partitions, online rows and a real node.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from include.artefacts.store import ArtefactStore
from include.clock import utc_now, wait_for
from include.config.settings import ROOT, Settings
from include.config.use_case_file import find
from include.deployment import deploy_model
from include.deployment.apply import apply_use_case
from include.features import online_rows
from include.features.online_stores import open_store
from include.lake.tables import Lake
from include.models import bundle, encoding
from include.models.artefact import artefact_digest
from include.models.bento_sources import read_sources, sources_digest, sources_folder
from include.models.calibration import calibrated
from include.models.kinds import DEFAULT, kind_of
from include.models.pins import serving_pins
from include.models.signing import sign_here
from include.pipeline.stage import Outcome, StageContext
from include.point_in_time import partitions
from include.records.records import AuditEntry, Model, Opponent, Records, StageResult
from tests.builders.ports import free_port

NAME = "loans"
FEATURE_SET = "a1b2c3d4e5"
NOW = datetime(2026, 3, 10, tzinfo=UTC)
FIRST = "2026-03-01"
YAML = """name: {name}
title: Small loans
history: {{first: 2026-01-01, last: {last}}}
entity: {{name: account, key: account_id}}
sources:
  events:
    path: events/*.csv
    key: [account_id, event_timestamp]
    columns: {{account_id: {{type: int64}}, income: {{type: float64}}, jobs: {{type: int64}},
        region: {{type: string}},
               new: {{type: bool}}, label: {{type: int64}}, label_timestamp: {{type: timestamp}}}}
label: {{source: events, column: label, delay: 30d}}
features:
  facts: {{grain: event, source: events, columns: {{income: float64, jobs: int64, region: string,
      new: bool}}}}
fallback: {{unknown: {unknown}, stale: {stale}, store: {store}}}
decision: {{threshold: 0.5}}
release: {{steps: []}}
"""
AT_ONCE = "{steps: []}"  # a release without steps: tests of other things need not wait for them
ROW = {"income": 1200.5, "jobs": 2, "region": "north", "new": True}


@lru_cache(maxsize=32)
def bundle_files(seed: int) -> dict[str, bytes]:
    """Return the files of a small real model; another seed is another model."""
    import lightgbm
    import numpy as np

    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(400, 4))
    matrix[:, 2] = generator.integers(0, 3, 400)
    labels = (matrix[:, 0] + 0.5 * matrix[:, 1] + generator.normal(size=400) > 0).astype(int)
    dataset = lightgbm.Dataset(matrix, labels, categorical_feature=[2])
    parameters = {
        "objective": "binary",
        "num_leaves": 7,
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, dataset, num_boost_round=10)
    region = encoding.Feature("region", "string", {"north": 0, "south": 1}, missing=2, unknown=3)
    plain = [encoding.Feature("income", "float64"), encoding.Feature("jobs", "int64")]
    features = (*plain, region, encoding.Feature("new", "bool"))
    schema = encoding.Schema(NAME, FEATURE_SET, features, 1.0, 0.0, 0.5, "")
    rows: list[dict[str, Any]] = [
        ROW,
        {**ROW, "region": "unseen"},
        dict.fromkeys(ROW),
        {**ROW, "income": -2.0},
    ]
    raw = booster.predict(encoding.encode(rows, schema), raw_score=True)
    scores = calibrated(np.asarray(raw), 1.0, 0.0)
    golden = json.dumps({"rows": rows, "scores": scores.tolist()}).encode()
    schema = replace(schema, golden="sha256:" + hashlib.sha256(golden).hexdigest())
    return {
        "model.txt": booster.model_to_string().encode(),
        "schema.json": schema.to_json().encode(),
        "golden.json": golden,
    }


@dataclass
class Answer:
    """One answer of a node."""

    status: int
    body: Any
    headers: dict[str, str]


class Desk:
    """An installation with what the stages before packaging would have left."""

    def __init__(
        self,
        home: Path,
        *,
        unknown: str = "refuse",
        stale: str = "refuse",
        last: str = "2026-03-31",
        release: str = AT_ONCE,
        **settings: Any,
    ) -> None:
        self.usecases = home / "usecases"
        self.usecases.mkdir(parents=True)
        self.write_use_case(unknown=unknown, stale=stale, last=last, release=release)
        self.settings = Settings(
            home=home, usecases=str(self.usecases), node_port=free_port(), **settings
        )
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.apply()

    def apply(self) -> None:
        """Record what a node must know of the use case, as its file has it now."""
        case = find(NAME, self.settings.usecase_dirs)
        apply_use_case(self.records, case, "test", "as the file has it")

    def write_use_case(
        self,
        *,
        unknown: str = "refuse",
        stale: str = "refuse",
        store: str = "refuse",
        last: str = "2026-03-31",
        release: str = AT_ONCE,
    ) -> None:
        """Write the use case's file; `release` is how its models are released, in YAML."""
        text = YAML.format(name=NAME, unknown=unknown, stale=stale, store=store, last=last)
        (self.usecases / f"{NAME}.yaml").write_text(text.replace(AT_ONCE, release))

    def bundle(self, seed: int) -> dict[str, bytes]:
        """Return the files of a model; another seed is another model."""
        return bundle_files(seed)

    def train(
        self, version: int, key: str = FIRST, *, seed: int | None = None, **changes: Any
    ) -> Model:
        """Write a bundle and record its model, as training would; with its Bento's digests."""
        files = self.bundle(version if seed is None else seed)
        folder, uri = self.settings.home / "models" / str(version), None
        if self.settings.store_uri:
            store = ArtefactStore.of(self.settings)
            uri = store.put("bundles", NAME, files)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
        model = Model(
            use_case=NAME,
            version=version,
            model_digest=bundle.digest_of(files),
            partition=key,
            as_of=datetime.fromisoformat(key).replace(tzinfo=UTC) + timedelta(days=1),
            mode="live",
            feature_set=FEATURE_SET,
            bundle=str(folder),
            bundle_uri=uri,
            pins=serving_pins(kind_of(DEFAULT)),
            generation=self.records.routes.get(NAME).generation,
        )
        return self.records.models.add(self.signed(self.packaged_as(replace(model, **changes))))

    def signed(self, model: Model) -> Model:
        """Return a model with the signature that packaging would give it."""
        return sign_here(self.settings, model, at=utc_now(), signed_as="packaging")

    def packaged_as(self, model: Model) -> Model:
        """Return a model with the digests of its Bento, as packaging would record them."""
        if model.bento_tag is None or model.bento_digest is not None or model.pins is None:
            return model
        folder = sources_folder(self.settings.home, model.bento_tag)
        if not folder.is_dir():
            return model
        code = sources_digest(read_sources(folder))
        whole = artefact_digest(model.model_digest, code, model.pins)
        return replace(model, bento_digest=code, artefact_digest=whole)

    def judge(self, model: Model, verdict: str = "pass", *, again: bool = False) -> None:
        """Record a verdict on a model against the champion of now, as evaluation would."""
        route = self.records.routes.get(NAME)
        at = utc_now()
        opponent = Opponent(
            NAME, model.model_digest, "live", route.champion, route.generation, model.partition, at
        )
        self.records.opponents.record(opponent, again=again)
        outputs = {
            "verdict": verdict,
            "reasons": [] if verdict == "pass" else ["AUC too low"],
            "version": model.version,
        }
        self.record(
            "evaluate_model", model.partition, outputs, digest=f"{model.model_digest}/{verdict}"
        )

    def package(self, model: Model) -> None:
        """Record that a model is packaged, without a Bento."""
        self.record(
            "package_model", model.partition, {"bento_tag": "none:none"}, digest=model.model_digest
        )

    def record(
        self, stage: str, key: str, outputs: dict[str, Any], *, digest: str, state: str = "done"
    ) -> None:
        """Record a result of a stage."""
        at = utc_now()
        result = StageResult(
            NAME, key, stage, state, digest, "", outputs, [], "", "live", at, at, 0.0, "none"
        )
        with self.records.leases.claim(NAME, stage, key, owner="test", attempt=1, ttl=30) as lease:
            self.records.results.commit(lease, result)

    def ask(self, key: str, mode: Any = "live", target: Any = "deployed") -> None:
        """Record that a partition is wanted."""
        self.records.partitions.raise_to(
            NAME, key, mode=mode, target=target, actor="test", at=utc_now()
        )

    def candidate(self, version: int, key: str = FIRST, **changes: Any) -> Model:
        """Record a trained, judged and packaged model of a live partition."""
        self.ask(key)
        model = self.train(version, key, **changes)
        self.judge(model)
        self.package(model)
        return model

    @contextmanager
    def context(self, stage: str, key: str = FIRST, **options: Any) -> Iterator[StageContext]:
        """Open a stage's work on a partition, as the runner does."""
        case = find(NAME, self.settings.usecase_dirs)
        row = self.records.partitions.get(NAME, key)
        assert row is not None
        with self.records.leases.claim(NAME, stage, key, owner="test", attempt=1, ttl=30) as lease:
            yield StageContext(
                settings=self.settings,
                use_case=case,
                period=partitions.period(case, key),
                lake=Lake(self.settings.lake_root),
                records=self.records,
                lease=lease,
                mode=row.mode,
                target=row.target,
                actor="test",
                started=utc_now(),
                options=options,
            )

    def deploy(self, key: str = FIRST, **options: Any) -> Outcome:
        """Release a partition's candidate and record that; the registry is left out."""
        with self.context("deploy_model", key, **options) as context:
            outcome = deploy_model.compute(context)
        self.record(
            "deploy_model", key, outcome.outputs, digest=outcome.digest, state=outcome.state
        )
        return outcome

    def record_route(self, **changes: Any) -> int:
        """Write the routing row, as whoever decides does; return its generation."""
        entry = AuditEntry("test", NAME, "route", "test", {}, utc_now())
        return self.records.routes.change(NAME, set=changes, entry=entry).generation

    def publish(
        self,
        rows: dict[int, tuple[datetime, dict[str, Any]]],
        *,
        ttl: timedelta = timedelta(days=35),
    ) -> None:
        """Put feature rows online."""
        what = online_rows.OnlineSet(
            FEATURE_SET, tuple(ROW), "2026-03-09", ttl, NOW, inputs="", digest=""
        )
        packed = [
            online_rows.pack(entity, round(at.timestamp() * 1e6), [row[name] for name in ROW])
            for entity, (at, row) in rows.items()
        ]
        open_store(self.settings, NAME).publish(what, packed)

    @contextmanager
    def node(self, setup: str = "", *, bearer: str = "") -> Iterator[Node]:
        """Run a real serving node; `setup` is Python that runs in it first.

        `bearer` is the token by which the test sees that it has started.
        """
        node = Node(self.settings, setup, bearer=bearer)
        try:
            node.start()
            yield node
        finally:
            node.stop()


class Node:
    """A serving node in a process of its own."""

    def __init__(self, settings: Settings, setup: str = "", *, bearer: str = "") -> None:
        self._bearer = {"authorization": f"Bearer {bearer}"} if bearer else {}
        self.settings = settings
        self.url = settings.node_url
        self._setup = setup
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def start(self, *, healthy: bool = True) -> None:
        """Start it and wait until it answers (and, if `healthy`, has read the records)."""
        environment = {
            **os.environ,
            "EVERGREEN_HOME": str(self.settings.home),
            "EVERGREEN_USECASES": self.settings.usecases,
            "EVERGREEN_NODE_PORT": str(self.settings.node_port),
            "EVERGREEN_PREDICT": self.settings.predict,
            "EVERGREEN_ONLINE_URL": self.settings.online_url.get_secret_value(),
            "EVERGREEN_RECORDS_URL": self.settings.records_url.get_secret_value(),
            "EVERGREEN_STORE_URI": self.settings.store_uri,
            "EVERGREEN_SIGNING_KEYS": str(self.settings.signing_keys_folder),
        }
        code = (
            "import logging; logging.basicConfig(level='INFO'); from include.config.settings "
            "import settings; "
        )
        code += f"from include.serving.node import serve\n{self._setup}\nserve(settings())"
        self.log = self.settings.home / "node.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], env=environment, cwd=ROOT, stdout=log, stderr=log
            )
        wanted = ("ok",) if healthy else ("ok", "starting", "degraded")

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the node has died, see {self.log}"
            return self.get("/health", headers=self._bearer).body.get("status") in wanted

        until(answers, what=f"answer of the node on {self.url}", seconds=300)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        self.client.close()
        self.client = httpx.Client(base_url=self.url, timeout=60)
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            code = self.process.wait(timeout=120)
        finally:
            self.process.kill()
            self.process = None
        return code

    def get(self, path: str, **options: Any) -> Answer:
        """Ask by GET."""
        return self._answer("GET", path, **options)

    def post(self, path: str, **options: Any) -> Answer:
        """Ask by POST."""
        return self._answer("POST", path, **options)

    def predict(self, **body: Any) -> Answer:
        """Ask for a prediction."""
        return self.post(f"/v1/{NAME}/predict", json=body)

    def serves(self, version: int | None) -> None:
        """Wait until a model version answers."""
        until(
            lambda: self.health.get("model_version") == version,
            what=f"model {version}",
        )

    @property
    def health(self) -> dict[str, Any]:
        """What the node says of the use case."""
        told = self.get("/health").body
        if not isinstance(told, dict):  # it has no connection left, and says so by hand
            return {}
        use_case: dict[str, Any] = told.get("use_cases", {}).get(NAME, {})
        return use_case

    @property
    def token(self) -> dict[str, str]:
        """The header that changes state."""
        return {"authorization": f"Bearer {self.settings.node_secret.get_secret_value()}"}

    def _answer(self, method: str, path: str, **options: Any) -> Answer:
        try:
            response = self.client.request(method, path, **options)
        except httpx.TransportError as error:
            return Answer(0, {"status": repr(error)}, {})
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return Answer(
            response.status_code,
            response.json() if is_json else response.text,
            dict(response.headers),
        )


def until(condition: Callable[[], bool], *, what: str, seconds: float = 180.0) -> None:
    """Wait until a condition holds; the test fails if it takes too long.

    So long that a busy machine starts a process meanwhile; where it is to be soon, a stopwatch
    tells.
    """
    assert wait_for(condition, seconds=seconds, every=0.05), f"no {what} within {seconds:g} s"
