"""Great Expectations: the suite built from a use case, and one that a person may add.

The built suite runs on the profile of the sources. The profile has one row a partition, counted in
curation: what came, how much of it is bad and why. Each partition gets its own verdict and result
from its own row, though those of a range are asked together. A person's suite, beside the
YAML as `expectations/<use_case>.json` in Great Expectations' own JSON (each expectation with `meta:
{"source": ...}`), runs on the curated rows of each partition; one of severity `warning` is recorded
and blocks nothing.
"""

from __future__ import annotations

import hashlib
import html
import json
import logging
import os
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.validation.cell_rules import has_rules, key_rules

MAX_SUITE = 256 * 1024
PARTITION = "partition"
AGE = "seconds from the newest arrival to as_of"
REPEATED = "share of rows that repeat a decision"

log = logging.getLogger(__name__)
Profile = dict[str, float | None]


@dataclass(frozen=True)
class Limit:
    """One expectation: a profile column lies within bounds."""

    column: str
    low: float | None
    high: float | None


def limits(use_case: UseCase) -> list[Limit]:
    """Return the expectations of a use case's sources, by the names of the profile columns."""
    bounds: list[Limit] = []
    for name, source in use_case.sources.items():
        least = max(source.min_rows, 1 if source.empty == "block" else 0)
        bounds += [
            Limit(f"{name}: columns missing", 0, 0),
            Limit(f"{name}: columns not declared", 0, 0 if source.extra == "refuse" else None),
            Limit(f"{name}: rows", least, source.max_rows),
            Limit(f"{name}: share of bad rows", 0, source.max_bad),
            Limit(f"{name}: share of conflicting duplicates", 0, source.max_bad),
        ]
        if source.fresh is not None:
            bounds.append(Limit(f"{name}: {AGE}", None, source.fresh.total_seconds()))
        if name == use_case.label.source:
            bounds.append(Limit(f"{name}: {REPEATED}", 0, source.max_bad))
        bounds += [
            Limit(f"{name}.{column}: share of bad values", 0, source.max_bad)
            for column, contract in source.columns.items()
            if has_rules(contract, **key_rules(source, column, use_case.entity.key))
        ]
    return [limit for limit in bounds if limit.low is not None or limit.high is not None]


def failures(
    use_case: UseCase, profiles: Mapping[str, Profile]
) -> tuple[dict[str, list[str]], Any]:
    """Run the suite on one profile row a partition.

    Returns the failed profile columns by partition, and the library's result for the last one.

    Raises:
        ConfigError: an expectation cannot be computed.
    """
    failed: dict[str, list[str]] = {key: [] for key in profiles}
    *earlier, last = profiles
    # Of one row the greatest value is the value itself: to ask for it costs the library a third of
    # what it takes to look for rows that fail. Its page takes Python's numbers alone.
    result = _run(use_case, {last: profiles[last]}, ["Max"], dtype=object)
    failed[last] += _failed_columns(use_case, result)
    if earlier:
        rows = {key: profiles[key] for key in earlier}
        # All rows lie within bounds where both ends of a column do; which ones fail is asked of
        # the columns where they do not.
        columns = _failed_columns(use_case, _run(use_case, rows, ["Max", "Min"]))
        located = {"result_format": "COMPLETE", "unexpected_index_column_names": [PARTITION]}
        found = _run(use_case, rows, ["Values"], columns, located) if columns else None
        for checked in found.results if found is not None else ():
            for row in checked.result.get("unexpected_index_list") or ():
                failed[row[PARTITION]].append(checked.expectation_config.kwargs["column"])
    return failed, result


def _run(
    use_case: UseCase,
    profiles: Mapping[str, Profile],
    asked: Sequence[str],
    columns: Collection[str] | None = None,
    result_format: Any = "BASIC",
    dtype: Any = None,
) -> Any:
    """Ask the library of profile columns (None: all) whether their values lie within the limits.

    `asked` says of which: the "Max", the "Min" or all "Values". A column without any value is left
    out.
    """
    with _quiet():
        import great_expectations as gx
        import pandas as pd
        from great_expectations import expectations as gxe

        frame = pd.DataFrame([{PARTITION: key, **row} for key, row in profiles.items()])
        expectations = [
            getattr(gxe, f"ExpectColumn{each}ToBeBetween")(
                column=limit.column, min_value=limit.low, max_value=limit.high
            )
            for limit in limits(use_case)
            if frame[limit.column].notna().any() and (columns is None or limit.column in columns)
            for each in asked
        ]
        suite = gx.ExpectationSuite(name=f"{use_case.name} profile", expectations=expectations)
        batch = _batch(gx, "profile", frame if dtype is None else frame.astype(dtype))
        return batch.validate(suite, result_format=result_format)


def _failed_columns(use_case: UseCase, result: Any) -> list[str]:
    """Return the profile columns of which an expectation has failed.

    Raises:
        ConfigError: an expectation cannot be computed.
    """
    failed = []
    for checked in result.results:
        column = checked.expectation_config.kwargs["column"]
        if raised := _raised(checked.exception_info):
            raise ConfigError(f"{use_case.name}: expectation on {column!r} fails: {raised}")
        if not checked.success:
            failed.append(column)
    return list(dict.fromkeys(failed))


def result_of(
    key: str,
    profile: Profile,
    failed: Sequence[str],
    use_case: UseCase,
    wanted: Sequence[Limit],
    own: Sequence[Any],
) -> dict[str, Any]:
    """Return one partition's result as Great Expectations writes it in JSON.

    Each expectation (`wanted` are those of the use case) stands there with its observed value, then
    those of a person's suite (`own`).
    """
    results = [
        {
            "expectation_config": {
                "type": "expect_column_max_to_be_between",
                "kwargs": {"column": limit.column, "min_value": limit.low, "max_value": limit.high},
            },
            "success": limit.column not in failed,
            "result": {"observed_value": profile[limit.column]},
        }
        for limit in wanted
        if profile[limit.column] is not None
    ]
    results += own
    passed = sum(bool(result["success"]) for result in results)
    return {
        "suite_name": f"{use_case.name} profile",
        "meta": {"partition": key},
        "success": passed == len(results),
        "statistics": {"evaluated_expectations": len(results), "successful_expectations": passed},
        "results": results,
    }


def data_docs(result: Any, title: str) -> str:
    """Return Great Expectations' page of a validation result."""
    with _quiet():
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultJinjaPageView

        page: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    # The page's own title is the same for every partition.
    return re.sub(
        r"<title>.*?</title>",
        f"<title>{html.escape(title)}</title>",
        page,
        count=1,
        flags=re.DOTALL,
    )


def own_suite(use_case: UseCase) -> tuple[str, list[dict[str, Any]]] | None:
    """Return digest and expectations of the suite that a person added, or None.

    Raises:
        ConfigError: the file is no suite, or an expectation does not say its source.
    """
    path: Path = use_case.folder / "expectations" / f"{use_case.name}.json"
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_SUITE:
        raise ConfigError(f"{path} is larger than {MAX_SUITE // 1024} KB; a suite is a page")
    data = path.read_bytes()
    try:
        expectations = json.loads(data)["expectations"]
        if not all(
            isinstance(each["type"], str) and isinstance(each.get("kwargs", {}), dict)
            for each in expectations
        ):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f'{path} is no suite; write {{"expectations": [{{"type": ..., "kwargs": ..., "meta": '
            "...}]}"
        ) from None
    only = next(iter(use_case.sources)) if len(use_case.sources) == 1 else None
    for index, expectation in enumerate(expectations):
        source = (expectation.get("meta") or {}).get("source", only)
        if source not in use_case.sources:
            raise ConfigError(
                f"{path}: expectation {index + 1} ({expectation['type']}) needs meta.source, one "
                f"of {sorted(use_case.sources)}; it has {source!r}"
            )
        expectation["meta"] = {**(expectation.get("meta") or {}), "source": source}
    return hashlib.sha256(data).hexdigest(), expectations


def run_own(
    use_case: UseCase, expectations: Sequence[dict[str, Any]], curated: Mapping[str, pa.Table]
) -> list[dict[str, Any]]:
    """Run a person's suite on one partition's curated rows; return the expectations' results.

    Raises:
        ConfigError: the library refuses the suite.
    """
    results: list[dict[str, Any]] = []
    with _quiet():
        import great_expectations as gx
        from great_expectations.expectations.expectation_configuration import (
            ExpectationConfiguration,
        )

        for name, rows in curated.items():
            chosen = [each for each in expectations if each["meta"]["source"] == name]
            if not chosen:
                continue
            try:
                configured = [
                    ExpectationConfiguration(
                        type=each["type"],
                        kwargs=each.get("kwargs", {}),
                        meta=each["meta"],
                        severity=each.get("severity", "critical"),
                    ).to_domain_obj()
                    for each in chosen
                ]
                suite = gx.ExpectationSuite(name=f"{use_case.name} {name}", expectations=configured)
            except Exception as error:  # noqa: BLE001 - the library's own errors have no common base
                raise ConfigError(
                    f"{use_case.name}: the suite of {name} is refused: {str(error)[:300]}"
                ) from None
            results += [
                result.to_json_dict()
                for result in _batch(gx, name, rows.to_pandas()).validate(suite).results
            ]
    return results


def blocks(result: Mapping[str, Any]) -> bool:
    """Tell whether a result of a person's suite blocks the partition."""
    return not result["success"] and result["expectation_config"].get("severity") != "warning"


def describe_failure(result: Mapping[str, Any]) -> str:
    """Return a failed result of a person's suite in words, with why it could not be computed."""
    config = result["expectation_config"]
    shown = f"{config['type']} {config['kwargs']} of {config['meta']['source']}"
    raised = _raised(result.get("exception_info"))
    return (
        f"{shown} could not be computed ({raised}); mend it in the suite"
        if raised
        else f"{shown} failed"
    )


def _raised(info: Any) -> str:
    """Return the message of an exception that a result holds; empty where there is none.

    The library gives it alone, or one by metric.
    """
    if not isinstance(info, Mapping):
        return ""
    if info.get("raised_exception"):
        return " ".join(str(info.get("exception_message")).split())[:300]
    return next((message for message in map(_raised, info.values()) if message), "")


def _batch(gx: Any, name: str, frame: Any) -> Any:
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
    )

    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    context = gx.get_context(
        project_config=DataContextConfig(store_backend_defaults=stores, analytics_enabled=False)
    )
    definition = (
        context.data_sources.add_pandas(name)
        .add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe(name)
    )
    context.variables.progress_bars = {"globally": False}
    return definition.get_batch({"dataframe": frame})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library off the network and off the log."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
