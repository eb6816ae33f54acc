"""A file of a tree is in place as a whole or not at all, in a folder and in object stores."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from include.backups.trees import Tree
from tests.builders.azure_store import azure_server, make_container
from tests.builders.object_stores import S3Store, forget_connections


def fail_in_the_middle(tree: Tree, path: str, content: bytes) -> None:
    def cut_off() -> None:
        with tree.written(path) as file:
            file.write(content)
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        cut_off()
    gc.collect()  # what is collected is closed by its library


def examine(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    unraised: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", unraised.append)
    with tree.written("there") as file:
        file.write(b"whole")
    for path, content in (("there", b"half"), ("new", b"half"), ("large", bytes(11 << 20))):
        fail_in_the_middle(tree, path, content)
    assert [tree.size_of(path) for path in ("there", "new", "large")] == [5, None, None]
    with tree.read("there") as read:
        assert read.read() == b"whole"
    assert not unraised


@pytest.mark.slow
def test_an_error_leaves_nothing_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examine(Tree("backup", str(tmp_path)), monkeypatch)


@pytest.mark.slow
def test_an_error_leaves_nothing_in_s3(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    examine(Tree("backup", s3_store.uri), monkeypatch)


@pytest.mark.slow
def test_an_error_leaves_nothing_in_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    with azure_server() as port:
        store = make_container(port)
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        forget_connections()
        examine(Tree("backup", store.uri), monkeypatch)
        forget_connections()
