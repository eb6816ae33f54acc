"""A collection: what goes, what stays, what is on record, and what a kill leaves."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from include.config.use_case_file import parse
from include.errors import ArtefactError, Busy, Conflict
from include.models.artefact import verify_row
from include.predictions.import_segments import import_closed
from include.records.records import Model, Window
from include.records.schema import ModelRow
from include.retention import aside, collect_garbage, packages
from include.retention.garbage import Place
from tests.builders.logged import write_segment
from tests.builders.serving import NAME, YAML
from tests.retention.place import NOW, Home, digest


class Killed(BaseException):
    """The process ends here."""


def test_what_nothing_needs_goes_with_its_package_and_the_row_stays(home: Home) -> None:
    home.train(*range(1, 6))
    home.release(1)
    done = home.collect()
    assert (done.versions, home.collected(), home.there()) == ([2, 3], [2, 3], [1, 4, 5])
    assert done.put_off == []
    for version in range(1, 6):
        assert all(path.exists() is (version in (1, 4, 5)) for path in home.packages(version))
    assert not (home.folder(2).parent).exists(), "the empty folder of its partition goes too"
    model = home.records.models.get(NAME, 2)
    assert model is not None
    with pytest.raises(ArtefactError, match=r"version 2 were collected.*run train_model .*03-02"):
        verify_row(model)
    assert home.collect().found == []


def test_what_is_young_stays_whatever_names_it(home: Home) -> None:
    home.train(*range(1, 5))
    (home.settings.home / "models" / NAME / "2026-03-01" / ".scratch.7").mkdir()
    before = home.files()
    done = home.collect(at=NOW + timedelta(hours=47))
    assert (done.found, done.versions, home.files()) == ([], [], before)
    old = NOW.timestamp() - 90 * 86400
    os.utime(home.folder(1), (old, old))
    assert home.collect(at=NOW + timedelta(hours=47)).found == [], "it was put there just now"


def test_a_dry_run_tells_all_of_it_and_touches_nothing(home: Home) -> None:
    home.train(*range(1, 5))
    for value in range(3):
        home.write_lake("features", value)
    before, head = home.files(), home.records.audit.head()
    told = home.collect(dry_run=True, hours=0)
    assert told.versions == [1, 2]
    assert {kind: total["count"] for kind, total in told.totals().items()} == {
        "models": 2,
        "packages": 2,
        "lake": 1,
    }
    assert told.totals()["models"]["bytes"] == 2 * len("model 1" + "rows")
    assert (home.files(), home.records.audit.head(), home.collected()) == (before, head, [])


def test_a_row_of_the_audit_log_tells_versions_counts_and_bytes(home: Home) -> None:
    home.train(*range(1, 4))
    home.collect()
    home.collect()
    first, second = home.records.audit.entries(NAME, action=collect_garbage.ACTION)
    assert first.details["versions"] == [1]
    assert first.details["kinds"]["models"] == {"count": 1, "bytes": len("model 1rows")}
    assert first.details["names"]["packages"] == [home.tag(1)]
    assert (first.actor, second.details["kinds"]) == ("test", {})
    assert home.records.audit.verify() is None


def test_what_no_record_names_goes_once_it_is_old(home: Home) -> None:
    home.train(1)
    orphan = home.settings.home / "models" / NAME / "2026-03-09" / "0123456789abcdef"
    orphan.mkdir(parents=True)
    home.package(9)
    home.package(1, "bbbbbbbb")  # by the code of an earlier version
    other = home.settings.home / "bento" / "receipts" / f"{NAME}_two-{home.tag(9)}.json"
    other.write_text("another use case's")
    assert {each.why for each in home.collect().removed} == {
        "no record names it",
        "no record names its model",
        "nothing needs its model",
    }
    assert not orphan.exists()
    assert not any(path.exists() for path in home.packages(9) + home.packages(1, "bbbbbbbb"))
    assert all(path.exists() for path in [*home.packages(1), other])
    assert home.there() == [1]


@pytest.mark.parametrize("after", range(5))
def test_killed_anywhere_the_next_run_finishes(
    home: Home, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Each deletion is preceded by the death of the process once."""
    home.train(1, 2, 3)
    delete, left = aside._delete, [after]

    def dies(path: Path) -> None:
        if path.exists():
            if not left[0]:
                raise Killed
            left[0] -= 1
        delete(path)

    monkeypatch.setattr(aside, "_delete", dies)
    with pytest.raises(Killed):
        home.collect()
    monkeypatch.undo()
    assert home.collected() == [1], "on record before anything went"
    assert len(home.records.audit.entries(NAME, action=collect_garbage.ACTION)) == 1
    assert home.there() == [2, 3]
    home.collect()
    left_behind = [name for name in home.files() if aside.PREFIX in name or home.tag(1) in name]
    assert (left_behind, home.there()) == ([], [2, 3])
    assert not home.folder(1).exists()


def test_what_was_put_aside_and_is_needed_again_is_put_back(home: Home) -> None:
    home.train(1, 2)
    receipt = home.packages(1)[-1]
    for path in (home.folder(1), receipt):
        path.rename(path.with_name(f"{aside.PREFIX}{path.name}"))
    home.collect()
    assert home.there() == [1, 2]
    assert receipt.exists()


def test_a_model_that_is_released_between_mark_and_sweep_survives(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.train(*range(1, 5))
    find = collect_garbage._find

    def then_released(*given: object) -> object:
        found = find(*given)  # type: ignore[arg-type]
        home.release(1)
        return found

    monkeypatch.setattr(collect_garbage, "_find", then_released)
    done = home.collect()
    assert (done.versions, home.collected(), home.there()) == ([2], [2], [1, 3, 4])
    (entry,) = home.records.audit.entries(NAME, action=collect_garbage.ACTION)
    assert entry.details["versions"] == [2]


def test_a_release_after_the_mark_is_refused_with_its_remedy(home: Home) -> None:
    home.train(*range(1, 5))
    home.collect()
    with pytest.raises(Conflict, match=r"version 1 were collected .*--partition 2026-03-01"):
        home.release(1)


def test_a_rollback_never_goes_to_what_was_collected(home: Home) -> None:
    home.train(*range(1, 7))
    for version in (1, 2, 3, 4):
        home.release(version)
    home.collect(newest=1)
    assert home.there() == [2, 3, 4, 6]
    home.roll_back()
    home.roll_back()
    route = home.records.routes.get(NAME)
    assert (route.champion, route.previous) == (2, None)


def test_nothing_of_models_goes_while_a_stage_uses_them(home: Home) -> None:
    home.train(*range(1, 5))
    for value in range(3):
        home.write_lake("features", value)
    claim = {"owner": "other", "attempt": 1, "ttl": 30}
    with home.records.leases.claim(NAME, "evaluate_model", "2026-03-09", **claim):
        done = home.collect(hours=0)
    assert (done.versions, home.there()) == ([], [1, 2, 3, 4])
    assert done.put_off == ["4 pieces of models: evaluate_model 2026-03-09 is at work"]
    assert [each.kind for each in done.removed] == ["lake"]
    assert home.collect().versions == [1, 2]


def test_it_waits_for_a_stage_only_where_something_of_models_is_to_go(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.train(1, 2)
    waited: list[float] = []
    claim = {"owner": "other", "attempt": 1, "ttl": 30}
    lease = home.records.leases.claim(NAME, "evaluate_model", "2026-03-09", **claim)

    def wait(answer: Callable[[], bool], *, seconds: float, every: float) -> None:
        assert not answer()
        waited.append(seconds)
        lease.release()

    monkeypatch.setattr(collect_garbage, "wait_for", wait)
    assert home.collect(wait=5.0).found == []
    assert waited == []
    home.train(3)
    assert home.collect(wait=5.0).versions == [1]
    assert waited == [5.0]


def test_a_training_that_begins_meanwhile_keeps_what_it_finds(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.train(1, 2, 3)
    claim = {"owner": "other", "attempt": 1, "ttl": 30}
    monkeypatch.setattr(Place, "at_work", lambda self: None)  # it begins right after the question
    with home.records.leases.claim(NAME, "train_model", home.key(1), **claim):
        done = home.collect()
        assert (home.there(), home.collected()) == ([1, 2, 3], [1])
        assert done.put_off == ["models version 1 of 2026-03-01: it is needed, or in use"]
        model = home.records.models.get(NAME, 1)
        assert model is not None
        again = dataclasses.replace(model, version=7, collected_at=None)
        home.records.models.add(again)  # and it ends
    assert home.collected() == []
    home.collect()
    assert home.folder(1).exists()


def test_packaging_that_finds_its_package_keeps_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins while the package is being put aside."""
    home.train(1)
    home.package(9)
    answers = iter([None, None, None, None, "package_model is at work"])
    monkeypatch.setattr(Place, "at_work", lambda self: next(answers, None))
    done = home.collect()
    assert next(answers, "asked") == "asked"
    assert done.removed == []
    assert all(path.exists() for path in home.packages(9))


def test_a_stage_that_starts_after_the_mark_puts_the_removal_off(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.train(1, 2, 3)
    leases, finish = [], collect_garbage._finish_before

    def then_judged(place: object) -> None:
        finish(place)  # type: ignore[arg-type]
        leases.append(
            home.records.leases.claim(
                NAME, "evaluate_model", "2026-03-09", owner="o", attempt=1, ttl=30
            )
        )

    monkeypatch.setattr(collect_garbage, "_finish_before", then_judged)
    done = home.collect()
    assert (home.collected(), home.there(), done.removed) == ([1], [1, 2, 3], [])
    monkeypatch.undo()
    leases[0].release()
    home.collect()
    assert home.there() == [2, 3]


def test_two_versions_with_one_bundle_go_together(home: Home) -> None:
    home.train(1, 2, 3)
    model = home.records.models.get(NAME, 1)
    assert model is not None
    home.records.models.add(dataclasses.replace(model, version=4))
    assert home.collect(newest=1).versions == [2, 3]
    assert home.there() == [1], "version 4 is in the same folder"
    home.train(5, 6)
    assert home.collect(newest=1).versions == [1, 4, 5]


def test_training_again_makes_a_collected_version_whole(home: Home) -> None:
    home.train(1, 2, 3)
    home.collect()
    model = home.records.models.get(NAME, 1)
    assert model is not None
    home.folder(1).mkdir(parents=True)
    home.records.models.add(dataclasses.replace(model, version=9, collected_at=None))
    assert home.collected() == []
    home.collect(newest=1)
    assert home.folder(1).exists(), "version 9 has it too"


def test_one_collection_at_a_time(home: Home) -> None:
    claim = {"owner": "other", "attempt": 1, "ttl": 30}
    with (
        home.records.leases.claim(NAME, collect_garbage.NAME, "all", **claim),
        pytest.raises(Busy, match="other"),
    ):
        home.collect()


def test_old_files_of_the_lake_go_and_pinned_versions_stay(home: Home) -> None:
    versions = [home.write_lake("features", value) for value in range(4)]
    home.train(1, manifest={"tables": {f"{NAME}/features": versions[1]}})
    assert home.collect().found == [], "a reader may have them open"
    (removed,) = home.collect(hours=0).removed
    assert (removed.kind, removed.name) == ("lake", f"2 files of {NAME}/features")
    table = f"{NAME}/features"
    assert home.lake.read(table, version=versions[1]).column("x").to_pylist() == [1]
    assert home.lake.read(table).column("x").to_pylist() == [3]
    head = home.lake.version(table)
    assert home.collect(hours=0).found == []
    assert home.lake.version(table) == head, "with nothing to do nothing is written"


def test_predictions_expire_too(home: Home) -> None:
    old = NOW - timedelta(days=500)
    write_segment(home.settings.home, 1, use_case=NAME, at=old)
    import_closed(home.settings, home.lake, home.records, NAME, at=NOW, actor="t")
    told = home.collect(dry_run=True)
    assert [(each.kind, each.name) for each in told.found] == [
        ("predictions", f"1 rows of {old:%Y-%m-%d}")
    ]
    assert len(home.lake.read(f"{NAME}/predictions")) == 1
    assert len(home.collect().removed) == 1
    assert len(home.lake.read(f"{NAME}/predictions")) == 0
    assert [entry.action for entry in home.records.audit.entries(NAME)] == [
        collect_garbage.ACTION,
        "predictions.expired",
    ]


def test_a_copy_of_a_home_is_collected_by_its_own_names(home: Home, tmp_path: Path) -> None:
    """The rows name the folder of the first home: what lies at the same place here is named too."""
    home.train(1, 2)
    with home.records.transaction() as session:
        for version in (1, 2):
            row = session.get_one(ModelRow, (NAME, version))
            row.bundle = row.bundle.replace(str(tmp_path), "/elsewhere")
    assert home.collect().found == []
    assert home.collect(newest=1).versions == [1]


def test_a_bundle_of_another_name_in_its_folder_is_the_version_s(home: Home) -> None:
    """Whoever recorded it: what serves would be taken for a folder that no record names."""
    home.train(*range(1, 5))
    home.release(1)
    home.records.models.update(NAME, 1, bundle=str(home.folder(1) / "bundle" / "model.txt"))
    home.records.models.update(NAME, 2, bundle=str(home.folder(2)))
    assert home.collect().versions == [2]
    assert home.there() == [1, 3, 4]


def test_what_vanishes_while_it_is_looked_at_is_passed_over(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run beside a collection sees files that are gone a moment later."""
    home.train(1, 2, 3, 4)
    size_of = aside.size_of

    def vanishing(path: Path) -> int:
        if home.tag(1) in str(path):
            raise FileNotFoundError(path)
        return size_of(path)

    monkeypatch.setattr(aside, "size_of", vanishing)
    found = home.collect(dry_run=True).found
    assert [each.name for each in found if each.kind == "packages"] == [home.tag(2)]


def test_what_was_put_aside_of_a_package_is_put_back_whatever_the_use_case_is_called(
    home: Home,
) -> None:
    """A name of sixteen hexadecimal digits before a tag looks like the beginning of one."""
    name = "feedfeedfeedfeed"
    text = YAML.format(
        name=name, last="2026-03-31", unknown="refuse", stale="refuse", store="refuse"
    )
    home.records.models.add(
        Model(
            name,
            1,
            digest(1),
            home.key(1),
            NOW,
            "live",
            "fs",
            "elsewhere",
            bento_tag=f"{name}_scorer:{home.tag(1)}",
        )
    )
    receipts = home.settings.home / "bento" / "receipts"
    receipts.mkdir(parents=True)
    (receipts / f"{aside.PREFIX}{name}-{home.tag(1)}.json").write_text("a receipt")
    packages.finish(Place(home.settings, home.records, parse(text), NOW, "test"))
    assert [path.name for path in receipts.iterdir()] == [f"{name}-{home.tag(1)}.json"]


def test_the_windows_of_a_release_go_a_month_after_its_end(home: Home) -> None:
    home.train(1, 2)
    release = home.request(1)
    releases = home.records.releases
    for name in (release.id, "reset"):
        window = Window(NAME, name, 0, "shadow", "challenger", "n1", "b1", 1, {"n": 1})
        releases.put_windows([window, dataclasses.replace(window, minute=2)])
        releases.latch(NAME, name, "n1", "b1", "errors")
    later = releases.now() + timedelta(days=31)
    done = home.collect(at=later, dry_run=True)
    assert [(one.kind, one.name) for one in done.found] == [("windows", "2 windows of reset")]
    releases.abort(release, "x", home.entry("release.aborted"))
    assert home.collect(at=later - timedelta(days=2)).found == []
    done = home.collect(at=later + timedelta(days=1))
    assert [one.name for one in done.removed] == [
        f"2 windows of {release.id}",
        "2 windows of reset",
    ]
    assert releases.windows(NAME, release.id) == releases.guards(NAME, release.id) == []
    told = home.records.audit.entries(NAME, action=collect_garbage.ACTION)[-1]
    assert told.details["kinds"]["windows"]["count"] == 2
    assert releases.get(NAME, release.id) is not None
