"""Against whom a candidate is judged: at first, again, and for days of the past."""

from __future__ import annotations

import pytest

from include.models import mlflow_registry
from tests.builders.judging import EARLY, LATE, MIDDLE, NAME, Bench, make_worse


def test_the_opponent_is_recorded_and_reused_by_reruns(bench: Bench) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.judged(MIDDLE)
    bench.release(2, MIDDLE)
    assert bench.run("evaluate_model", MIDDLE).reused, "the champion is the candidate itself now"
    bench.forget_result("evaluate_model", MIDDLE)
    assert bench.run("evaluate_model", MIDDLE).outputs["opponent"] == 1
    assert bench.records.audit.entries(NAME, action="model.judged")[-1].details["verdict"] == "pass"


def test_a_passed_candidate_is_judged_again_where_another_champion_came_between(
    bench: Bench,
) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.judged(MIDDLE)
    bench.judged(LATE)
    bench.release(2, MIDDLE)
    again = bench.run("evaluate_model", LATE)
    assert (again.reused, again.outputs["opponent"]) == (False, 2)
    opponent = bench.records.opponents.get(NAME, bench.model(LATE).model_digest, mode="live")
    assert opponent is not None
    assert opponent.version == 2


def test_a_refused_candidate_keeps_its_verdict_whoever_serves_later(bench: Bench) -> None:
    make_worse(bench)
    bench.judged(MIDDLE)
    bench.release(2, MIDDLE)  # by force of a person
    bench.release(1, MIDDLE)
    assert bench.run("evaluate_model", MIDDLE).reused


@pytest.mark.slow
def test_a_backfill_meets_the_champion_of_the_newest_older_partition_and_touches_nothing_live(
    bench: Bench,
) -> None:
    for version, key in enumerate((EARLY, LATE, "2026-02-09"), start=1):
        bench.judged(key)
        bench.release(version, key)
    live = (bench.records.routes.get(NAME), mlflow_registry.aliases(bench.settings, NAME))
    outputs = bench.judged("2026-02-08", mode="backfill")
    assert outputs["opponent"] == 2
    assert bench.judged(MIDDLE, mode="backfill")["opponent"] == 1
    assert bench.judged("2026-02-03", mode="backfill")["opponent"] is None
    assert (bench.records.routes.get(NAME), mlflow_registry.aliases(bench.settings, NAME)) == live
    assert [model.state for model in bench.records.models.of(NAME)] == ["released"] * 3 + [
        "candidate"
    ] * 3
