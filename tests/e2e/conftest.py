"""One real installation for all end-to-end tests, with two small use cases of CSV files: `evergreen
up` on free ports, or, with EVERGREEN_E2E=compose, the containers that run (installations.py).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from tests.builders.ports import free_ports
from tests.builders.webhook_server import webhook_server
from tests.e2e.installations import Composed, Embedded, Installation

DAYS = 26
ENTITIES = 40
YAML = """
name: {name}
title: Does a visitor buy?
history: {history}
entity: {{name: visitor, key: visitor_id}}
sources:
  visits:
    path: "data/visits-{{partition}}.csv"
    event_time: at
    arrival: event + 0s
    key: [visitor_id, at]
    columns:
      visitor_id: {{type: int64, nullable: false}}
      at: {{type: timestamp, nullable: false}}
      pages: {{type: int64, min: 0}}
      minutes: {{type: float64}}
      bought: {{type: int64, values: ["0", "1"]}}
label: {{source: visits, column: bought, label_time: event + 1d, delay: 2d, lookback: 4d}}
features:
  visit:
    grain: event
    source: visits
    lookback: 10d
    ttl: 10d
    columns: {{pages: int64, minutes: float64}}
training: {{rounds: 30}}
gates: {{min_rows: 20, min_auc: 0.6, over_baseline: -0.2, max_calibration_error: 0.4}}
release: {{steps: [], watch: 0s}}
"""


def write_data(folder: Path, last: date, days: int = DAYS) -> None:
    """Write a CSV a day up to `last`: who looks at more pages buys more often."""
    folder.mkdir(parents=True, exist_ok=True)
    for back in range(days):
        day = last - timedelta(days=back)
        draw = random.Random(day.toordinal())
        lines = ["visitor_id,at,pages,minutes,bought"]
        for visitor in range(1, ENTITIES + 1):
            pages = draw.randint(0, 20)
            bought = int(draw.random() < 0.1 + 0.04 * pages)
            at = f"{day} {draw.randint(0, 23):02}:{draw.randint(0, 59):02}:00"
            lines.append(f"{visitor},{at},{pages},{draw.uniform(0, 60):.2f},{bought}")
        (folder / f"visits-{day}.csv").write_text("\n".join(lines) + "\n")


def write_use_cases(folder: Path) -> tuple[str, str]:
    """Write `visits`, and `fresh`: the same with a closed history, which nobody starts.

    Return the first key, and the one before the newest.
    """
    yesterday = utc_now().date() - timedelta(days=1)
    # Today's rows are there too: where the tests run over midnight, `visits` takes them as well.
    write_data(folder / "data", yesterday + timedelta(days=1), DAYS + 1)
    first = yesterday - timedelta(days=DAYS - 1)
    for name, history in (
        ("visits", f"{{first: {first}}}"),
        ("fresh", f"{{first: {first}, last: {yesterday}}}"),
    ):
        (folder / f"{name}.yaml").write_text(YAML.format(name=name, history=history))
    return first.isoformat(), (yesterday - timedelta(days=1)).isoformat()


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of the use case `visits`, up and answered; `fresh` is the same with a
    closed history, and never ran.
    """
    if os.environ.get("EVERGREEN_E2E") == "compose":
        composed = Composed()
        first, before = write_use_cases(composed.usecases)
        composed.bring_up("visits", first, before)
        yield composed
        return
    folder = tmp_path_factory.mktemp("e2e")
    write_use_cases(folder / "usecases")
    ports = free_ports(3)
    settings = Settings(
        home=folder / "var",
        usecases=str(folder / "usecases"),
        airflow_port=ports[0],
        mlflow_port=ports[1],
        node_port=ports[2],
    )
    with webhook_server() as hooks:
        started = Embedded(settings, EVERGREEN_ALERT_URL=hooks.url.get_secret_value())
        started.alerts = hooks.taken
        try:
            started.wait(lambda: "Ctrl-C stops everything" in started.said, "answer", 1200)
            yield started
        finally:
            started.end()


@pytest.fixture(scope="session")
def embedded(installation: Installation) -> Embedded:
    """The same, where it runs on this machine."""
    if not isinstance(installation, Embedded):
        pytest.skip("it looks at this machine's processes and files; the containers have their own")
    return installation


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes the shared installation down after all that need it.

    The nights, which have one of their own, come first: at the end one worker would be left with
    them. What has another one comes last, as three at once are too much for a small machine.
    """
    place = {"test_nights.py": 0, "test_stop.py": 2, "test_celery.py": 3}
    items.sort(key=lambda item: place.get(item.path.name, 1))


def session_of(pid: int) -> int:
    """Return the session of a process, 0 if it has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
