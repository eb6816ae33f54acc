"""The node's numbers: what a scraper reads, in both formats, and that nodes do not mix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from include.config.settings import ROOT
from include.predictions.on_disk import OnDisk
from include.serving.prometheus import BOUNDS, Metrics

COUNT = """
from include.serving.prometheus import Metrics
metrics = Metrics()
metrics.count_answer("loans", "predict", 200)
print(metrics.render("")[0].decode())
"""
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def series(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return each series of the text format: its value by name and label values."""
    text, _ = metrics.render("")
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in parse_text(text.decode())
        for sample in family.samples
    }


def test_answers_are_counted_by_use_case_route_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics.count_answer("loans", "predict", status)
    assert series(metrics) == {
        ("evergreen_answers_total", "route=predict", "status=200", "use_case=loans"): 2,
        ("evergreen_answers_total", "route=predict", "status=404", "use_case=loans"): 1,
    }


def test_a_duration_falls_into_the_first_bucket_that_holds_it() -> None:
    metrics = Metrics()
    for seconds in (0.08, 0.0801, 60.0):
        metrics.observe_duration("loans", seconds)
    found = series(metrics)

    def below(bound: str) -> float:
        return found["evergreen_prediction_seconds_bucket", f"le={bound}", "use_case=loans"]

    assert [below(str(bound)) for bound in BOUNDS[-7:]] == [0, 1, 2, 2, 2, 2, 2]
    assert below("+Inf") == found["evergreen_prediction_seconds_count", "use_case=loans"] == 3
    assert found["evergreen_prediction_seconds_sum", "use_case=loans"] == pytest.approx(60.1601)


def test_what_serves_is_shown_until_it_serves_no_more() -> None:
    metrics = Metrics()
    metrics.show_served("loans", 1, 57, {"champion": 3, "previous": 2})
    metrics.show_served("cards", 1, 1, {"champion": 1})
    metrics.show_served("loans", 2, 8, {"champion": 2})
    metrics.hide_served("cards")
    assert series(metrics) == {
        ("evergreen_model_version", "role=champion", "use_case=loans"): 2,
        ("evergreen_routing_generation", "epoch=2", "use_case=loans"): 8,
    }


def test_counters_of_a_use_case_outlive_it() -> None:
    metrics = Metrics()
    metrics.count_event("loans", "fallback", 2)
    metrics.hide_served("loans")
    assert series(metrics) == {("evergreen_events_total", "event=fallback", "use_case=loans"): 2}


def test_the_log_is_counted_and_what_waits_is_shown_until_it_is_hidden() -> None:
    metrics = Metrics()
    for lines, size in ((3, 900), (0, 0), (2, 600)):
        metrics.count_lines("loans", lines, size)
    metrics.show_log("loans", OnDisk(segments=4, bytes=2000, oldest=61.5, set_aside=7))
    metrics.show_room(10**9, {"loans": True, "cards": False})
    loans = "use_case=loans"
    found = series(metrics)
    assert found["evergreen_log_lines_total", loans] == 5
    assert found["evergreen_log_bytes_total", loans] == 1500
    assert found["evergreen_log_waiting_segments", loans] == 4
    assert found["evergreen_log_waiting_bytes", loans] == 2000
    assert found["evergreen_log_oldest_seconds", loans] == 61.5
    assert found["evergreen_log_set_aside_lines", loans] == 7
    assert found["evergreen_log_full", loans] == 1
    assert found["evergreen_log_full", "use_case=cards"] == 0
    assert found["evergreen_log_free_bytes", loans] == 10**9
    metrics.hide_log("loans")
    assert {name for name, *labels in series(metrics) if loans in labels} == {
        "evergreen_log_lines_total",
        "evergreen_log_bytes_total",
    }


def test_two_nodes_in_one_process_do_not_add_up() -> None:
    first, second = Metrics(), Metrics()
    first.count_event("loans", "fallback")
    assert series(second) == {}


def test_openmetrics_is_given_to_who_accepts_it() -> None:
    metrics = Metrics()
    metrics.count_answer("loans", "predict", 200)
    text, media_type = metrics.render(f"{OPENMETRICS},text/plain;q=0.5")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    (answers, *_) = parse_openmetrics(text.decode())
    assert [sample.name for sample in answers.samples] == ["evergreen_answers_total"]


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain;version=0.0.4", "text/plain;version=x", "application/json"]
)
def test_all_others_are_given_the_text_format(accept: str) -> None:
    assert Metrics().render(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_directory_for_several_processes_is_left_alone(tmp_path: Path) -> None:
    """BentoML sets it in the environment of whoever imports it; a node is one process."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    child = subprocess.run(
        [sys.executable, "-c", COUNT],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 'status="200",use_case="loans"} 1.0' in child.stdout
    assert list(tmp_path.iterdir()) == []
