"""Dotted names and paths that no type checker sees: each resolves, so that a move leaves none
behind.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from include.config.settings import ROOT, Settings
from include.installation import environment
from include.models.kinds import KINDS, every_kind
from include.models.pins import COMMON
from include.orchestration import dag_defaults, triggers
from include.packaging.shipped import shipped_files
from include.pipeline.flow import ENTRY
from include.pipeline.stage import Stage
from include.records import migrate
from include.validation import validate_data

HOME = ROOT / "include" / "orchestration" / "airflow_home"


def resolved(name: str) -> object:
    """Return what a dotted name stands for: a module, or what a module has."""
    if importlib.util.find_spec(name.rpartition(".")[0]) is None:
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, part = name.rpartition(".")
        return getattr(importlib.import_module(module), part, None)


@pytest.mark.parametrize("name", ENTRY)
def test_every_entry_exports_its_stage(name: str) -> None:
    stage = importlib.import_module(ENTRY[name]).STAGE
    assert isinstance(stage, Stage)
    assert stage.name == name
    assert (ROOT / "dags" / f"{name}.py").is_file()


def test_what_the_scheduler_imports_ahead_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["airflow"])  # nothing is imported yet
    warm = runpy.run_path(str(HOME / "airflow_local_settings.py"))["WARM"]
    assert set(ENTRY.values()) <= set(warm)
    assert [name for name in warm if importlib.util.find_spec(name) is None] == []


def test_airflow_finds_its_local_settings(tmp_path: Path) -> None:
    paths = environment.child_environment(Settings(home=tmp_path))["PYTHONPATH"].split(os.pathsep)
    assert [path for path in paths if (Path(path) / "airflow_local_settings.py").is_file()] == [
        str(HOME)
    ]
    assert any((Path(path) / "include" / "__init__.py").is_file() for path in paths)


def strings(path: Path) -> list[str]:
    """Return the dotted names of ours that stand as text in a file."""
    found = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
    ]
    return [
        text
        for text in found
        if isinstance(text, str) and text.startswith("include.") and " " not in text
    ]


@pytest.mark.parametrize("folder", ["dags", "include"])
def test_every_dotted_name_in_code_resolves(folder: str) -> None:
    names = {name: path for path in (ROOT / folder).rglob("*.py") for name in strings(path)}
    names.pop("include.", None)  # what such names begin with
    assert names
    assert {name: str(path) for name, path in names.items() if resolved(name) is None} == {}


def test_what_feast_is_told_to_load_is_there() -> None:
    document = yaml.safe_load((ROOT / "feature_repo" / "feature_store.yaml").read_text())
    named = [
        document["registry"]["registry_store_type"],
        document["online_store"]["type"],
        document["offline_store"]["type"],
    ]
    assert [name for name in named if resolved(name) is None] == []


def test_what_airflow_is_told_to_retry_is_there() -> None:
    assert [name for name in dag_defaults.TRANSIENT if resolved(str(name)) is None] == []


def test_a_trigger_is_found_by_the_name_that_it_serializes() -> None:
    path, arguments = triggers.PauseTrigger(0.0).serialize()
    kind = resolved(path)
    assert kind is triggers.PauseTrigger
    assert kind(**arguments).serialize() == (path, arguments)


def test_what_a_bento_ships_and_what_pins_and_rules_name_is_there() -> None:
    kinds = every_kind()
    shipped = {path for kind in kinds for path in shipped_files(kind).values()}
    assert shipped >= {*COMMON, *(path for kind in kinds for path in kind.modules)}
    assert shipped >= {f"{name.replace('.', '/')}.py" for name in KINDS.values()}
    assert [path for path in shipped if not (ROOT / path).is_file()] == []
    assert (migrate.FOLDER / "env.py").is_file()
    assert [name for name in validate_data.RULES if resolved(name) is None] == []


def test_packages_hold_no_code_of_their_own() -> None:
    """An import of one module runs no other, and the memo follows modules alone."""
    assert [
        str(path) for path in (ROOT / "include").rglob("*/__init__.py") if path.read_text()
    ] == []
