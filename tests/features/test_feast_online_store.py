"""Feast's registry and online store under our home: nothing lost, nothing half written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import ROOT
from include.errors import Conflict
from include.features.feast_registry import apply_registry, online_path, store
from tests.builders.shop import DAY, T0, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    apply_registry(made.settings, made.records, made.use_case, made.feature_set)
    return made


def visit(customer: int, pages: int, moment: Any) -> Any:
    """Return a row of the view of visits as Feast takes it."""
    import pandas as pd

    times = {name: [pd.Timestamp(moment)] for name in ("event_timestamp", "created_timestamp")}
    return pd.DataFrame({"customer_id": [customer], "pages": [pages], "device": ["x"]} | times)


def pages(shop: Shop) -> list[int | None]:
    """Return what Feast answers for customers 1 to 3."""
    entities = [{"customer_id": number} for number in (1, 2, 3)]
    answer: list[int | None] = (
        store(shop.settings).get_online_features(["shop__visit:pages"], entities).to_dict()["pages"]
    )
    return answer


def test_of_two_registry_writers_the_later_one_is_refused(shop: Shop) -> None:
    """Feast writes back a registry that it read before.

    Without a check the other writer's objects would vanish.
    """
    from feast import Entity

    first, second = store(shop.settings), store(shop.settings)
    for opened in (first, second):
        assert opened.registry.list_entities(opened.project)
    first.registry.apply_entity(Entity(name="one"), first.project, commit=False)
    second.registry.apply_entity(Entity(name="two"), second.project, commit=False)
    first.registry.commit()
    with pytest.raises(Conflict, match="changed by another writer"):
        second.registry.commit()
    assert {"one"} == {one.name for one in store(shop.settings).list_entities()} & {"one", "two"}


def test_a_transaction_over_many_batches_is_all_or_nothing(shop: Shop) -> None:
    """Feast commits each batch by itself; inside ours a failure takes all of them back."""
    opened = store(shop.settings)
    opened.write_to_online_store("shop__visit", visit(1, 10, T0))
    online_store = opened._get_provider().online_store

    def write_and_fail() -> None:
        with online_store.one_transaction(opened.config):
            for customer in (1, 2, 3):
                opened.write_to_online_store("shop__visit", visit(customer, 77, T0 + DAY))
            raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert pages(shop) == [10, None, None]


def test_an_older_value_is_left_out_and_one_of_the_same_moment_is_not(shop: Shop) -> None:
    opened = store(shop.settings)
    for moment, value, online in ((T0 + DAY, 1, 1), (T0, 2, 1), (T0 + DAY, 3, 3)):
        opened.write_to_online_store("shop__visit", visit(1, value, moment))
        assert pages(shop)[0] == online


def test_readers_never_wait_for_a_writer(shop: Shop) -> None:
    opened = store(shop.settings)
    opened.write_to_online_store("shop__visit", visit(1, 10, T0))
    with opened._get_provider().online_store.one_transaction(opened.config):
        opened.write_to_online_store("shop__visit", visit(1, 11, T0 + DAY))
        with sqlite3.connect(online_path(shop.settings), timeout=0.0) as con:
            assert con.execute('SELECT count(*) FROM "evergreen_shop__visit"').fetchone() == (2,)
        assert pages(shop) == [10, None, None]
    assert pages(shop) == [11, None, None]


def test_a_registry_that_cannot_be_replaced_stays_as_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast import Entity

    def refuse(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    folder = shop.settings.home / "feast"
    before = (folder / "registry.db").read_bytes()
    opened = store(shop.settings)
    assert opened.registry.list_entities(opened.project)
    opened.registry.apply_entity(Entity(name="one"), opened.project, commit=False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="no space left"):
            opened.registry.commit()
    assert (folder / "registry.db").read_bytes() == before
    assert not [
        path
        for path in folder.iterdir()
        if path.name.endswith("registry.db") and path.name != "registry.db"
    ]
    opened.registry.commit()
    assert "one" in {entity.name for entity in store(shop.settings).list_entities()}


APPLY = """
import sys
from feast import Entity
from include.errors import Conflict
from include.features.feast_registry import store
from include.config.settings import settings
opened = store(settings())
opened.registry.list_entities(opened.project)
# It reads the registry anew: both have read it before either writes.
opened.registry.apply_entity(Entity(name=sys.argv[1]), opened.project, commit=False)
print("ready", flush=True)
sys.stdin.readline()
try:
    opened.registry.commit()
    print("written")
except Conflict:
    print("refused")
"""


@pytest.mark.slow
def test_of_processes_that_write_the_registry_at_once_one_wins(shop: Shop) -> None:
    environment = os.environ | {"EVERGREEN_HOME": str(shop.settings.home)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", APPLY, name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    ends = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        ends.append(child.communicate(timeout=60)[0].strip())
    assert sorted(ends) == ["refused", "written"]
    names = {entity.name for entity in store(shop.settings).list_entities()}
    assert len(names & {"one", "two"}) == 1
