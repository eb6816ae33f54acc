"""What a log says of how a use case is asked, of segments that were really imported."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from include.config.settings import Settings
from include.deployment.recorded_traffic import burstiness, traffic_of_log
from include.errors import SourceError
from include.lake.tables import Lake
from include.predictions.import_segments import import_closed
from include.predictions.line_writer import LineWriter
from include.predictions.log import PredictionLog
from include.records.records import Records
from tests.builders.logged import DAY, line, write_segment

NAME = "loans"
HEAVY, LIGHT = 60, 200  # entities 0 to 9 ask so often, so many others once


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A log of a day: by night nothing, ten entities with most of the requests, one slow hour."""
    home = tmp_path_factory.mktemp("recorded")
    settings = Settings(home=home)
    records = Records.open(settings.records_address)
    records.migrate()
    rng = np.random.default_rng(3)
    entities = [number % 10 for number in range(10 * HEAVY)] + [100 + n for n in range(LIGHT)]
    entities += [None] * 300  # each an entity of its own
    writer = LineWriter(PredictionLog(home, NAME))
    for number, entity in enumerate(entities):
        second = int(rng.integers(6 * 3600, 18 * 3600))
        at = DAY.replace(hour=0) - timedelta(days=1) + timedelta(seconds=second)
        slow = 9 * 3600 <= second < 10 * 3600 and rng.random() < 0.6
        micros = int(rng.integers(10, 20)) + 5_000 * slow
        writer.write(line(writer, number, at=at, entity=entity, model_us=micros))
    writer.log.close()
    write_segment(home, *range(90), at=DAY - timedelta(hours=3), outcome=b"shadow")
    lake = Lake(settings.lake_root)
    import_closed(settings, lake, records, NAME, at=DAY, actor="test")
    return lake


def test_it_has_the_requests_of_each_entity_and_the_hours_without_shadows(lake: Lake) -> None:
    traffic = traffic_of_log(lake, NAME, DAY)
    assert traffic.asked == (HEAVY,) * 10 + (1,) * (LIGHT + 300)
    assert len(traffic.hours) == 24
    assert sum(traffic.hours) == 10 * HEAVY + LIGHT + 300
    assert traffic.hours[:6] == (0.0,) * 6 == traffic.hours[18:]
    assert min(traffic.hours[6:18]) > 50
    assert traffic.requests_a_day == pytest.approx(1100 / 1.27, rel=0.05)  # since its beginning


def test_a_slow_hour_is_slowness_that_lasts(lake: Lake) -> None:
    traffic = traffic_of_log(lake, NAME, DAY)
    assert traffic.bursts > 0.8
    assert traffic.lasting > 0.8


def test_too_short_a_log_says_so_and_how_to_get_more(lake: Lake) -> None:
    with pytest.raises(SourceError, match=r"holds 0 requests .* import-predictions loans"):
        traffic_of_log(lake, NAME, DAY + timedelta(days=30))


@pytest.mark.parametrize(("bursts", "lasting"), [(0.5, 0.9), (1.0, 0.8), (0.0, 0.0)])
def test_how_slowness_comes_is_found_again_in_what_was_drawn_by_it(
    bursts: float, lasting: float
) -> None:
    rng, minutes = np.random.default_rng(1), 10_080
    state, now = np.empty(minutes), rng.normal(0, bursts)
    for minute in range(minutes):
        now = lasting * now + rng.normal(0, bursts * np.sqrt(1 - lasting**2))
        state[minute] = now
    answers = rng.poisson(30, minutes)
    slow = rng.binomial(answers, np.minimum(1, 0.05 * np.exp(state - bursts**2 / 2)))
    asked = answers > 0
    found = burstiness(np.flatnonzero(asked), answers[asked], slow[asked])
    assert found == pytest.approx((bursts, lasting), abs=0.12)


def test_without_slow_answers_nothing_lasts() -> None:
    none = np.zeros(5, int)
    assert burstiness(np.arange(5), none + 3, none) == (0.0, 0.0)
    assert burstiness(none[:0], none[:0], none[:0]) == (0.0, 0.0)
