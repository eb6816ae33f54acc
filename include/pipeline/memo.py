"""Digest what an answer depends on into one memo key.

Key = digests of the partitions read + the declared fields of the use case (SQL files by their
content) + the code of the stage and of all that it imports inside include/ (its syntax tree,
without comments and docstrings) + the versions of the libraries that it declares.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from include.config.settings import ROOT
from include.config.use_case import UseCase
from include.lake.digests import combine
from include.syntax import bare_tree, tree_digest

FEATURE_SQL = ROOT / "feature_repo" / "sql"


def memo_key(
    *,
    stage: str,
    code: str,
    use_case: UseCase,
    fields: Sequence[str],
    libraries: Sequence[str],
    inputs: Sequence[tuple[str, str, str]],
    options: dict[str, Any],
) -> str:
    """Return the memo key of a stage for one partition.

    `code` is its `code_digest`; `inputs` are (table, key, digest), in any order.
    """
    return key_of(
        stage=stage,
        code=code,
        fields=fields_digest(use_case, fields),
        libraries=libraries,
        inputs=inputs,
        options=options,
    )


def key_of(
    *,
    stage: str,
    code: str,
    fields: str,
    libraries: Sequence[str],
    inputs: Sequence[tuple[str, str, str]],
    options: dict[str, Any],
) -> str:
    """Return the memo key, as `memo_key`, where the `fields_digest` is known."""
    parts = [stage, code, fields, json.dumps(options, sort_keys=True, default=str)]
    parts += [f"{name}=={_version(name)}" for name in sorted(libraries)]
    parts += ["|".join(read) for read in sorted(inputs)]
    return combine(parts)


@lru_cache(maxsize=256)
def _version(library: str) -> str:
    """Return the version of an installed library, which a process does not change."""
    return version(library)


def fields_digest(use_case: UseCase, fields: Sequence[str]) -> str:
    """Return the digest of some fields (dotted names); an .sql file counts by its content.

    A property of the use case is named as a field is, where a stage reads no more of its fields.
    """
    document = use_case.model_dump(mode="json")
    chosen: dict[str, Any] = {}
    for name in fields:
        first, *rest = name.split(".")
        value: Any = document[first] if first in document else getattr(use_case, first)
        for part in rest:
            value = value[part]
        chosen[name] = _with_sql(value, use_case.folder)
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def code_digest(module: str) -> str:
    """Return the digest of a module's code, with all in include/ that it imports or starts."""
    return combine([f"{path.relative_to(ROOT)}:{digest}" for path, digest in _closure(module)])


def _with_sql(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _with_sql(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_sql(item, folder) for item in value]
    # With blanks around a name, as `resolve_sql` takes it.
    if isinstance(value, str) and value.strip().endswith(".sql"):
        for base in (folder, FEATURE_SQL):
            if (base / value.strip()).is_file():
                return (base / value.strip()).read_text(encoding="utf-8")
    return value


def _closure(module: str) -> list[tuple[Path, str]]:
    """Return the files of a module and of all that it reaches, with the digests of their code."""
    paths, reached = _modules(), dict[str, tuple[Path, str]]()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        path = paths[name]
        code = _code(name, path, path.stat().st_mtime_ns)
        reached[name] = path, code.digest
        waiting |= {other for other in code.imports if other in paths and other not in reached}
    return sorted(reached.values())


def _modules() -> dict[str, Path]:
    """Return the files of all modules of include/, by name."""
    modules: dict[str, Path] = {}
    for folder, below, files in os.walk(ROOT / "include"):
        below[:] = [name for name in below if not name.startswith("__")]
        package = ".".join(Path(folder).relative_to(ROOT).parts)
        for file in files:
            if file == "__init__.py":
                modules.setdefault(package, Path(folder, file))
            elif file.endswith(".py"):
                modules[f"{package}.{file.removesuffix('.py')}"] = Path(folder, file)
    return modules


class _Code(NamedTuple):
    digest: str
    imports: tuple[str, ...]


@lru_cache(maxsize=512)
def _code(module: str, path: Path, _changed: int) -> _Code:
    """Return the digest of a file's syntax tree and the modules of include/ that it reaches.

    Comments and docstrings do not count: what is said to readers retrains nothing.
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = bare_tree(path.read_bytes())
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith("include.")
        ):
            # A child process (`python -m include.ingestion.file_worker`), or a class that a library
            # loads by its name: the module may be the whole text, or all before its last dot.
            names += [node.value, node.value.rpartition(".")[0]]
    ours = tuple(name for name in names if name == "include" or name.startswith("include."))
    return _Code(tree_digest(tree), ours)
