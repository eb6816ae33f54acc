"""Translate errors of engines (DuckDB, Arrow, pandas, Delta, LightGBM) into errors of ours.

Each place that foresees such an error says it better than this one can, with column and remedy.
This is the last place before a person: the stages run behind it, so no engine's class and no exit
code of a defect comes of what stands in data or SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from include.errors import ConfigError, EvergreenError, SourceError
from include.object_stores import explain
from include.pipeline.stage import Stage

log = logging.getLogger(__name__)

# First parts of the modules that their errors come from; `_internal` is deltalake's own.
_ENGINES = ("duckdb", "_duckdb", "pyarrow", "pandas", "deltalake", "_internal", "lightgbm")
_CALLS = ("inputs", "compute", "effects", "still_valid", "outdated")
_OF_STORAGE = (
    "IOException",
    "HTTPException",
    "OutOfMemoryException",
    "ArrowMemoryError",
    "DeltaError",
    "OSError",
)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise an engine's error as one of ours that names `where`; other errors go through.

    Raises:
        SourceError: storage or memory failed.
        ConfigError: an engine refuses anything else: a value of another type, a name, a query.
    """
    try:
        yield
    except EvergreenError:
        raise
    except Exception as error:
        kinds = type(error).__mro__
        if not any(kind.__module__.split(".", maxsplit=1)[0] in _ENGINES for kind in kinds):
            raise
        if any(kind.__name__ in _OF_STORAGE for kind in kinds):
            # Without the error itself: of a store it has addresses with their signatures.
            raise SourceError(
                f"{where}: storage or memory fails ({explain(error)}); free space, or mend the "
                "files"
            ) from None
        log.info("%s", where, exc_info=True)
        # DuckDB adds the SQL behind "LINE": ours, which says nothing to whoever wrote the data.
        message = " ".join(str(error).split("\n\nLINE ", maxsplit=1)[0].split())[:500]
        message = message or type(error).__name__
        raise ConfigError(
            f"{where}: a value, a name or a query does not fit ({message}); correct the use case "
            "or its data. `evergreen usecase check --data FILE` looks for it, `evergreen -v` "
            "shows where"
        ) from error


def guarded(stage: Stage) -> Stage:
    """Return a stage whose calls raise our errors where an engine refuses them."""
    calls = {name: getattr(stage, name) for name in _CALLS}
    wrapped: dict[str, Any] = {
        name: _call(stage.name, call) for name, call in calls.items() if call is not None
    }
    compute_range = None if stage.compute_range is None else _range(stage.name, stage.compute_range)
    return replace(stage, **wrapped, compute_range=compute_range)


def _call(stage: str, called: Callable[..., Any]) -> Callable[..., Any]:
    def call(context: Any, *more: Any) -> Any:
        with translated(where_of(stage, context)):
            return called(context, *more)

    return call


def _range(stage: str, called: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def outcomes(contexts: Any) -> Iterator[Any]:
        computed = iter(called(contexts))
        while True:
            # Around the stage's own steps alone: what the caller does between them is none of its.
            with translated(where_of(stage, contexts)):
                try:
                    outcome = next(computed)
                except StopIteration:
                    return
            yield outcome

    return outcomes


def where_of(stage: str, argument: Any) -> str:
    """Return use case, stage and partitions of a context, of a list of them, or of pairs with one.

    Each call of a stage takes one of these: `still_valid` takes pairs of context and result.
    """
    first = last = argument
    while isinstance(first, (list, tuple)):
        first, last = first[0], last[-1] if last is argument else last[0]
    span = first.key if first.key == last.key else f"{first.key} to {last.key}"
    return f"{first.use_case.name}: {stage} of {span}"
