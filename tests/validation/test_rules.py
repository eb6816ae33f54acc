"""Rules are inputs: what another contract, suite or query made is never taken for what today's
would make.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.errors import EvergreenError, MissingPartition
from include.installation.up import describe_outdated
from include.pipeline import ranges
from include.validation import expectations
from tests.builders.installation import Installation
from tests.builders.intake import COLUMNS, HEAD, Intake
from tests.builders.recorded import differing

KEYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
DATA = ("ingest_data", "validate_data", "materialize_features")
LABEL = """label:
  delay: 1d
  lookback: 3d
  sql: >-
    SELECT customer_id, min(event_timestamp) AS event_timestamp,
        max(created_timestamp) AS label_timestamp,
    CASE WHEN sum(amount) > 25 THEN 1 ELSE 0 END AS label FROM orders GROUP BY customer_id
"""
ROWS = (
    "1,1,2026-01-01T10:00:00Z,2026-01-01T10:00:00Z,10.5,1\n"
    "2,2,2026-01-01T11:00:00Z,2026-01-01T11:00:00Z,2000,0\n"
    "3,1,2026-01-02T10:00:00Z,2026-01-02T10:00:00Z,30,1\n"
    "4,2,2026-01-03T10:00:00Z,2026-01-03T10:00:00Z,15,1\n"
)
LOOSE = "max_bad: 1"


def shop(home: Path, *, columns: str = COLUMNS, more: str = LOOSE, rows: str = ROWS) -> Intake:
    made = Intake(home)
    made.put(HEAD + rows)
    define(made, columns=columns, more=more)
    return made


def define(made: Intake, *, columns: str = COLUMNS, more: str = LOOSE, label: str = LABEL) -> None:
    made.define(columns=columns, more=more)
    text = (made.folder / "shop.yaml").read_text()
    (made.folder / "shop.yaml").write_text(
        text[: text.index("label:")] + label + text[text.index("features:") :]
    )


def digests(made: Intake) -> dict[tuple[str, str], str]:
    return {
        (row.stage, row.key): row.digest
        for row in made.records.results.of("shop")
        if row.stage in DATA
    }


def recomputed(made: Intake) -> list[str]:
    return [
        entry.subject for entry in made.records.audit.entries("shop", action="partition.recomputed")
    ]


TIGHT = COLUMNS.replace("{type: float64}", "{type: float64, max: 1000}")


@pytest.fixture(scope="module", autouse=True)
def _no_page() -> Iterator[None]:
    """Leave the page out, which costs most of a validation and says nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expectations, "data_docs", lambda *_: "")
        yield


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Intake:
    """An installation of the first contract, loaded; to be copied."""
    made = shop(tmp_path_factory.mktemp("loose"))
    made.load(KEYS[0], KEYS[-1])
    return made


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Intake:
    """An installation that began with the tighter contract; to be compared with."""
    made = shop(tmp_path_factory.mktemp("tight"), columns=TIGHT)
    made.load(KEYS[0], KEYS[-1])
    return made


def copied(made: Intake, home: Path) -> Intake:
    """Return a copy of an installation that may be changed."""
    made.records.close()
    shutil.copytree(made.settings.home, home, dirs_exist_ok=True)
    other = Intake.__new__(Intake)
    other.folder = home / "usecases"
    Installation.__init__(other, home, "shop")
    return other


@pytest.mark.slow
def test_a_tighter_contract_gives_what_a_new_installation_gives_in_any_order(
    tmp_path: Path, loose: Intake, tight: Intake
) -> None:
    """Of the days before, one comes out otherwise and is audited; the other is only known to be
    of today's rules.
    """
    assert digests(loose) != digests(tight)
    assert differing(tight) == []
    for name, order in (("newest", KEYS[::-1]), ("oldest", KEYS)):
        made = copied(loose, tmp_path / name)
        define(made, columns=TIGHT)
        before = made.versions()
        for key in order:
            made.day(key, DATA)
        assert digests(made) == digests(tight)
        assert differing(made) == []
        assert made.digests() == tight.digests()
        if order == KEYS[::-1]:
            # The second day has no amount above 1000, and no label that rests on one.
            assert recomputed(made) == [KEYS[0]]
            curated = next(name for name in before if "curated" in name)
            assert made.versions()[curated] == before[curated] + 1  # type: ignore[operator]
            assert [made.run("validate_data", key).reused for key in KEYS] == [True] * 3


@pytest.mark.slow
def test_a_day_that_the_old_contract_blocked_is_judged_afresh(
    tmp_path: Path, loose: Intake
) -> None:
    made = shop(tmp_path, columns=TIGHT, more="max_bad: 0")
    assert [report.state for report in made.load(KEYS[0], KEYS[-1], DATA[:2])][3:] == [
        "blocked",
        "done",
        "done",
    ]
    define(made)
    made.day(KEYS[-1], DATA)
    assert (
        made.result("materialize_features", KEYS[-1]).digest
        == loose.result("materialize_features", KEYS[-1]).digest
    )
    assert made.result("validate_data", KEYS[0]).state == "done"
    assert KEYS[0] in recomputed(made)


def test_a_day_that_is_stale_as_well_is_left_to_a_person(tmp_path: Path, loose: Intake) -> None:
    """Its raw rows have changed since: it is judged in memory for the labels, its record stays
    and shows as stale.
    """
    made = copied(loose, tmp_path)
    recorded = made.result("validate_data", KEYS[0])
    made.put(HEAD + ROWS.replace("2000", "900"))
    made.run("ingest_data", KEYS[0], options={"restate": "corrected"})
    define(made, columns=TIGHT)
    made.run("validate_data", KEYS[-1])
    assert made.result("validate_data", KEYS[0]) == recorded
    assert recomputed(made) == []


def test_a_day_that_another_run_holds_is_left_to_it(
    tmp_path: Path, loose: Intake, tight: Intake
) -> None:
    made = copied(loose, tmp_path)
    define(made, columns=TIGHT)
    with made.records.leases.claim(
        "shop", "validate_data", KEYS[0], owner="other", attempt=1, ttl=60
    ):
        made.run("validate_data", KEYS[-1])
    assert recomputed(made) == []
    assert (
        made.result("validate_data", KEYS[-1]).digest
        == tight.result("validate_data", KEYS[-1]).digest
    )


WHOLE = COLUMNS.replace("amount: {type: float64}", "amount: {type: int64}")


@pytest.mark.slow
def test_a_column_of_another_type_is_never_cast(tmp_path: Path, loose: Intake) -> None:
    """Whole numbers become fractions: the older rows lie in a table of the older types, and are
    asked for by name.
    """
    made = shop(tmp_path, columns=WHOLE)
    made.load(KEYS[0], KEYS[-1])
    define(made)
    with pytest.raises(
        MissingPartition,
        match=r"3 partitions \(2026-01-01 to 2026-01-03\) hold no curated rows of orders",
    ) as told:
        made.run("materialize_features", KEYS[-1])
    assert "`evergreen load-history shop --from 2026-01-01 --to 2026-01-03`" in str(told.value)
    made.day(KEYS[-1], DATA)  # validation brings what is looked back on into today's table first
    assert (
        made.result("materialize_features", KEYS[-1]).digest
        == loose.result("materialize_features", KEYS[-1]).digest
    )
    assert differing(made) == []
    for key in KEYS:
        made.day(key, DATA)
    assert digests(made) == digests(loose)
    assert differing(made) == []


def test_force_reads_back_what_is_stored(tmp_path: Path, loose: Intake) -> None:
    """What is computed again is equal to the record, but a writer of before has cast the rows
    that lie in the lake.
    """
    made = copied(loose, tmp_path)
    for stage, word in (
        ("ingest_data", "raw"),
        ("validate_data", "curated"),
        ("materialize_features", "features"),
    ):
        assert made.run(stage, KEYS[0], force=True).reason == "equal to the record"
        table = next(name for name in made.tables() if f"/{word}/" in name)
        rows = made.lake.read(table, keys=[KEYS[0]])
        made.lake.replace(table, KEYS[0], rows.slice(0, 1))
        with pytest.raises(
            EvergreenError,
            match=rf"the lake holds other rows than are recorded: {table} 2026-01-01",
        ):
            made.run(stage, KEYS[0], force=True)
        made.lake.replace(table, KEYS[0], rows)


def test_what_an_upgrade_will_compute_again_is_known_before(tmp_path: Path, loose: Intake) -> None:
    made = copied(loose, tmp_path)

    def asked() -> list[str]:
        return ranges.find_outdated("validate_data", made.name, KEYS[-1], settings=made.settings)

    now = datetime(2026, 1, 4, tzinfo=UTC)
    assert asked() == describe_outdated(made.settings, now) == []
    define(made, columns=TIGHT)
    assert asked() == KEYS[:2]
    (line,) = describe_outdated(made.settings, now)
    assert (
        "2 partitions were judged (2026-01-01 to 2026-01-02); the next run judges them again first"
        in line
    )
    assert ranges.find_outdated("ingest_data", made.name, KEYS[-1], settings=made.settings) == []


def test_labels_of_another_definition_are_asked_for_by_name(tmp_path: Path, loose: Intake) -> None:
    """A training set never holds labels of two definitions."""
    made = copied(loose, tmp_path)
    define(made, label=LABEL.replace("> 25", "> 40"))
    with pytest.raises(
        MissingPartition,
        match=r"hold no labels as label is defined now.*load-history shop --from 2026-01-0",
    ):
        made.run("train_model", KEYS[-1])
