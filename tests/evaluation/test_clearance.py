"""What a rollback holds back, and who may lift it."""

from __future__ import annotations

from include.models import mlflow_registry
from include.records.records import AuditEntry
from tests.builders.judging import EARLY, LATE, MIDDLE, NAME, NOW, Bench


def roll_back(bench: Bench) -> None:
    route = bench.records.routes.rollback(
        NAME, entry=AuditEntry("release.rolled_back", NAME, "x", "test", {}, at=NOW)
    )
    mlflow_registry.mirror_aliases(bench.settings, NAME, route)


def test_what_was_trained_before_a_rollback_and_what_was_rolled_back_is_a_hold(
    bench: Bench,
) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.judged(MIDDLE)
    bench.release(2, MIDDLE)
    bench.run("train_model", LATE)
    roll_back(bench)
    outputs = bench.run("evaluate_model", LATE).outputs
    assert outputs["verdict"] == "hold"
    assert "trained in generation 2, before the rollback of generation 3" in outputs["reasons"][0]
    again = bench.run("evaluate_model", MIDDLE)
    assert (again.reused, again.outputs["verdict"]) == (False, "hold")
    assert "was rolled back and is on hold" in "; ".join(again.outputs["reasons"])
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 1}
    digest = bench.model(MIDDLE).model_digest
    bench.records.routes.lift(
        NAME, digest, entry=AuditEntry("release.hold_lifted", NAME, "2", "person", {}, at=NOW)
    )
    lifted = bench.run("evaluate_model", MIDDLE).outputs
    assert (lifted["verdict"], lifted["opponent"], lifted["generation"]) == ("pass", 1, 4)
