"""A use case that is added while everything runs: the real UCI data, by its YAML, through the
whole chain in Airflow.
"""

from __future__ import annotations

import httpx
import pytest

from include.clock import utc_now
from include.config.settings import ROOT
from tests.e2e.installations import EVERY_DAG, Embedded

NAME, LAST = "credit_default", "2005-10-01"


@pytest.mark.slow
def test_the_real_credit_data_goes_through_the_whole_chain(embedded: Embedded) -> None:
    data = embedded.settings.data_dir / "uci_credit_default"
    if not data.is_dir():
        pytest.skip(f"the UCI data is not at {data}; set EVERGREEN_DATA_DIR")
    folder = embedded.settings.usecase_dirs[0]
    shipped = (ROOT / "include" / "usecases" / f"{NAME}.yaml").read_text()
    # Its run would go on for the day in which the new model is watched.
    (folder / f"{NAME}.yaml").write_text(f"{shipped}\nrelease: {{watch: 0s}}\n")
    wanted = {f"{NAME}__{dag}" for dag in (*EVERY_DAG, "load_history")}
    embedded.wait(lambda: wanted <= set(embedded.api.dag_ids()), "the new use case's DAGs", 120)
    assert embedded.api.paused(f"{NAME}__ingest_data"), "a new use case starts paused"

    run = embedded.api.trigger(
        f"{NAME}__load_history", conf={"first": "2005-04-01", "last": "2005-09-01"}
    )
    embedded.wait(lambda: not embedded.api.run(run.dag_id, run.run_id).active, "its history", 180)
    assert embedded.api.run(run.dag_id, run.run_id).state == "success"
    assert {row.key: row.target for row in embedded.records.partitions.of(NAME)} == {
        f"2005-{month:02}-01": "data" for month in range(4, 10)
    }

    began = utc_now()
    embedded.api.pause(f"{NAME}__ingest_data", False)
    embedded.api.trigger(f"{NAME}__ingest_data")
    # The form run itself has no key.
    embedded.settle(NAME, [LAST], dags=EVERY_DAG[1:], after=began, seconds=240)
    assert embedded.api.runs(f"{NAME}__ingest_data", key="2005-09-01") == [], (
        "a closed history is not scheduled"
    )

    judged = embedded.records.results.get(NAME, LAST, "evaluate_model")
    assert judged is not None
    assert judged.outputs["verdict"] == "pass", judged.outputs["reasons"]
    assert 0.75 <= judged.outputs["metrics"]["auc"] < 0.82, "far above .80 would be a leak"
    route = embedded.records.routes.get(NAME)
    assert (route.champion, route.watermark) == (1, LAST)
    drift = embedded.records.results.get(NAME, LAST, "check_drift")
    assert drift is not None
    assert drift.outputs["verdict"] in ("pass", "drift")

    def answered() -> bool:
        answer = httpx.post(
            f"{embedded.settings.node_url}/v1/{NAME}/predict", json={"entity": 1}, timeout=10
        )
        return answer.status_code == 200

    embedded.wait(answered, "an answer", 30)
