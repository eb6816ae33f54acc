"""Stage `validate_data`: verdict pass, quarantine or block on each source; then curated rows and
labels.

Inputs: `raw/<source>` of the partition, and for labels by SQL that of the label's lookback.
Outputs: `curated/<source>`, `quarantine/<source>`, `labels`, and the result under HOME/validation.
A partition that blocks leaves no curated row and no label. Earlier partitions of a label's lookback
that are not validated yet are curated here, in memory: the stage never waits on itself. So are
those that were judged by other rules than today's; `outdated` names those whose record the runner
renews first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.config.use_case import UseCase
from include.errors import Busy, ConfigError, EvergreenError, MissingPartition
from include.features import feature_sets
from include.lake.digests import combine
from include.lake.sql import connect
from include.pipeline import memo
from include.pipeline.stage import Input, Outcome, Stage, StageContext, lost
from include.point_in_time import partitions
from include.point_in_time.curated import curated_table, label_schema, label_table
from include.point_in_time.views import AsOfViews
from include.records.records import StageResult
from include.validation import expectations, findings, labels
from include.validation.curation import Judged, curated_digest, judge
from include.validation.read_back import read_back

NAME = "validate_data"
FIELDS = ("cadence", "cut_off", "history", "entity", "sources", "label")
LIBRARIES = ("duckdb", "great-expectations", "pyarrow", "sqlglot")
RULES = (
    "include.validation.curation",
    "include.validation.expectations",
    "include.validation.findings",
    "include.validation.labels",
)
CHUNK_ROWS = 2_000_000

log = logging.getLogger(__name__)
Facts = Mapping[str, Any]


def inputs(context: StageContext) -> list[Input]:
    """Return the recorded digests of the partition's raw rows, and those that its labels look back
    on.

    Raises:
        MissingPartition: the partition, or one of the label's lookback, is not ingested.
    """
    context.need("ingest_data", [context.key])
    ingested = _ingested([context])
    new = sorted(set(context.use_case.sources) - set(ingested[context.key].outputs["sources"]))
    if new:
        raise MissingPartition(
            f"{context.use_case.name} {context.key} was ingested before the sources {new} were "
            "declared; ingest it again: `evergreen run ingest_data --use-case "
            f"{context.use_case.name} --partition {context.key}`",
            keys=[context.key],
        )
    events = _label_events(context)
    found = [
        Input(context.table(f"raw/{name}"), key, fact["digest"])
        for key in _lookback(context, ingested)
        for name, fact in ingested[key].outputs["sources"].items()
        if key == context.key or name in events
    ]
    return found + _suite(context.use_case)


def compute(context: StageContext) -> Outcome:
    """Validate and curate one partition."""
    ((_, outcome),) = compute_range([context])
    return outcome


def compute_range(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    """Validate and curate many partitions, each judged alone and with earlier partitions only,
    in one scan of each source.
    """
    for chunk in _chunks(contexts):
        yield from _Range(chunk, newest=chunk[-1] is contexts[-1]).outcomes()


def outdated(contexts: Sequence[StageContext]) -> list[str]:
    """Return the earlier partitions that labels and views look back on and that were judged by
    other rules than today's.

    One whose raw rows have changed as well is stale, and for a person to run again.
    """
    use_case = contexts[0].use_case
    spans = [view.lookback for view in use_case.features.values()]
    with suppress(ConfigError):  # a query that is not there is told by the stage that asks it
        needed = feature_sets.sets_to_compute(
            contexts[0].records, use_case, [context.key for context in contexts]
        )
        spans += [view.lookback for sets in needed.values() for one in sets for view in one.views]
    span = max(use_case.label.lookback if _label_events(contexts[0]) else timedelta(0), *spans)
    keys = {
        key for context in contexts for key in partitions.lookback(use_case, context.key, span)
    } - {context.key for context in contexts}
    rules = rules_digest(use_case)
    judged = [row for row in _results(contexts[0], NAME, keys) if row.state in ("done", "blocked")]
    old = [row for row in judged if row.outputs.get("rules") != rules]
    if not old:
        return []
    read = {read[1] for row in old for read in row.reads}
    raw = {
        (contexts[0].table(f"raw/{name}"), result.key): fact.get("digest")
        for result in _results(contexts[0], "ingest_data", read)
        if result.state == "done"
        for name, fact in result.outputs["sources"].items()
    }
    start = contexts[0].table("raw/")
    return sorted(
        row.key
        for row in old
        if all(
            raw.get((read[0], read[1])) == read[2]
            for read in row.reads
            if read[0].startswith(start)
        )
    )


def rules_digest(use_case: UseCase) -> str:
    """Return the digest of all that judges raw rows and makes labels of them: contract, suite,
    SQL, code, libraries.
    """
    inputs = [(read.table, read.key, read.digest) for read in _suite(use_case)]
    return memo.memo_key(
        stage=NAME,
        code=_rules(),
        use_case=use_case,
        fields=FIELDS,
        libraries=LIBRARIES,
        inputs=inputs,
        options={},
    )


@dataclass
class _Verdict:
    """What was found of one partition."""

    judged: dict[str, Judged]
    profile: expectations.Profile
    failed: list[str]
    own: list[dict[str, Any]] = field(default_factory=list)

    @property
    def blocked(self) -> bool:
        """Tell whether an expectation that blocks has failed."""
        return bool(self.failed) or any(expectations.blocks(result) for result in self.own)


class _Range:
    """Some partitions and the earlier ones that their labels need, judged together."""

    def __init__(self, contexts: Sequence[StageContext], *, newest: bool) -> None:
        self._contexts, self._first, self._newest = contexts, contexts[0], newest
        self._use_case = contexts[0].use_case
        self._mark = rules_digest(self._use_case)
        self._ingested = _ingested(contexts)
        self._keys = [context.key for context in contexts]
        looked = sorted(
            {key for context in contexts for key in _lookback(context, self._ingested)}
            - set(self._keys)
        )
        self._recorded = {
            result.key: result for result in _results(contexts[0], NAME, [*looked, *self._keys])
        }
        self._stored = [key for key in looked if self._is_curated(key)]
        fresh = [key for key in looked if key not in self._stored]
        self._statics = {
            name: self._static(name)
            for name, source in self._use_case.sources.items()
            if source.kind == "static"
        }
        self._verdicts, self._result = self._judge([*fresh, *self._keys])
        self._views: AsOfViews | None = None
        self._con = connect()

    def outcomes(self) -> Iterator[tuple[StageContext, Outcome]]:
        """Write each partition and yield what it came to."""
        try:
            for context in self._contexts:
                try:
                    outcome = self._one(context)
                except Busy as error:
                    outcome = lost(error)
                yield context, outcome
        finally:
            self._con.close()
            if self._views is not None:
                self._views.__exit__(None, None, None)

    def _one(self, context: StageContext) -> Outcome:
        verdict = self._verdicts[context.key]
        facts: dict[str, dict[str, Any]] = {}
        for name, source in self._use_case.sources.items():
            fact = self._ingested[context.key].outputs["sources"][name]
            if source.kind == "static":
                facts[name] = self._write_static(context, name, fact["version"])
            elif fact.get("expected", True):
                facts[name] = self._write(context, name, verdict)
        found = self._labels(context, verdict)
        verdict_name = (
            "block"
            if verdict.blocked
            else "quarantine"
            if any(f["quarantined"] for f in facts.values())
            else "pass"
        )
        told = self._write_labels(context, found)
        report = self._report(context, verdict)
        outputs = {
            "verdict": verdict_name,
            "sources": facts,
            "labels": told,
            "report": report,
            "rules": self._mark,
        }
        parts = [f"{name}:{fact['curated_digest']}" for name, fact in sorted(facts.items())]
        whole = combine([verdict_name, *parts, f"labels:{told['digest']}"])
        log.info("%s %s: %s", self._use_case.name, context.key, verdict_name)
        return Outcome(
            "blocked" if verdict.blocked else "done", whole, self._reason(verdict), outputs
        )

    def _write(self, context: StageContext, name: str, verdict: _Verdict) -> dict[str, Any]:
        judged = verdict.judged[name]
        curated = judged.curated.slice(0, 0) if verdict.blocked else judged.curated
        table, recorded = (
            curated_table(self._first.lake, self._use_case, name),
            self._recorded.get(context.key),
        )
        fact: dict[str, Any] = {
            "table": table,
            "curated_digest": curated_digest(curated, self._use_case, name),
            "rows": len(curated),
            **findings.counts(judged),
        }
        before = recorded.outputs.get("sources", {}).get(name) if recorded is not None else None
        if before != fact or not self._stands(
            table, context.key, fact["curated_digest"], partial(self._curated_digest, name)
        ):
            self._replace(table, context, context.key, curated)
            self._replace(
                context.table(f"quarantine/{name}"), context, context.key, judged.quarantine
            )
        return fact

    def _write_labels(self, context: StageContext, found: pa.Table) -> dict[str, Any]:
        table, recorded = (
            label_table(self._first.lake, self._use_case),
            self._recorded.get(context.key),
        )
        fact: dict[str, Any] = {
            "table": table,
            "digest": labels.label_digest(found, self._use_case),
            "rows": len(found),
            "rules": labels.rules_digest(self._use_case),
        }
        before = recorded.outputs.get("labels") if recorded is not None else None
        if before != fact or not self._stands(
            table, context.key, fact["digest"], self._label_digest
        ):
            self._replace(table, context, context.key, found)
        return fact

    def _stands(
        self, table: str, key: str, recorded: str, digest: Callable[[pa.Table], str]
    ) -> bool:
        """Tell whether the lake holds just these rows already: judged again to the same, they
        get no further version.
        """
        return (
            self._first.lake.exists(table)
            and digest(self._first.lake.read(table, keys=[key])) == recorded
        )

    def _curated_digest(self, name: str, rows: pa.Table) -> str:
        return curated_digest(rows, self._use_case, name)

    def _label_digest(self, rows: pa.Table) -> str:
        return labels.label_digest(rows, self._use_case)

    def _write_static(self, context: StageContext, name: str, version: str) -> dict[str, Any]:
        """Write a version of a static source where it is not there yet, whichever partition
        comes first.
        """
        known, judged = self._statics[name][version]
        if judged is not None:
            self._replace(
                curated_table(self._first.lake, self._use_case, name),
                context,
                version,
                judged.curated,
            )
            self._replace(context.table(f"quarantine/{name}"), context, version, judged.quarantine)
            self._statics[name][version] = (known, None)
        return known

    def _replace(self, table: str, context: StageContext, key: str, rows: pa.Table) -> None:
        lake = self._first.lake
        if len(rows) or key in lake.keys(table):
            lake.replace(
                table,
                key,
                rows if rows.num_columns else lake.read(table, keys=[]),
                fence=context.fence,
            )

    def _static(self, name: str) -> dict[str, tuple[dict[str, Any], Judged | None]]:
        """Return the facts of each version that the partitions know, and its rows where they are
        still to be written.
        """
        found: dict[str, tuple[dict[str, Any], Judged | None]] = {}
        table = curated_table(self._first.lake, self._use_case, name)
        for key in self._keys:
            fact = self._ingested[key].outputs["sources"][name]
            version = fact["version"]
            if version in found:
                continue
            mark = combine(
                [version, fact["digest"], self._use_case.sources[name].model_dump_json(), _rules()]
            )
            earlier = next(
                (known for known in self._known(name) if known.get("mark") == mark), None
            )
            if earlier is not None and version in self._first.lake.keys(table):
                found[version] = ({**earlier, "table": table}, None)
                continue
            period = partitions.period(self._use_case, version)
            judged = judge(self._first.lake, self._use_case, name, [period], {version: fact})[
                version
            ]
            facts = {
                "curated_digest": curated_digest(judged.curated, self._use_case, name),
                "rows": len(judged.curated),
                **findings.counts(judged),
                "table": table,
                "version": version,
                "mark": mark,
                "profile": findings.profile(name, judged),
            }
            found[version] = (facts, judged)
        return found

    def _known(self, name: str) -> Iterator[dict[str, Any]]:
        for near in (True, False):  # the version of the days before, nearly always
            for result in self._recorded.values() if near else _results(self._first, NAME):
                if name in result.outputs.get("sources", {}):
                    yield result.outputs["sources"][name]

    def _judge(self, keys: Sequence[str]) -> tuple[dict[str, _Verdict], Any]:
        periods = [partitions.period(self._use_case, key) for key in sorted(keys)]
        judged: dict[str, dict[str, Judged]] = {period.key: {} for period in periods}
        for name, source in self._use_case.sources.items():
            if source.kind == "static":
                continue
            facts = {p.key: self._ingested[p.key].outputs["sources"].get(name, {}) for p in periods}
            due = [p for p in periods if facts[p.key].get("expected", bool(facts[p.key]))]
            for key, found in judge(self._first.lake, self._use_case, name, due, facts).items():
                judged[key][name] = found
        profiles = {period.key: self._profiled(period, judged[period.key]) for period in periods}
        failed, result = expectations.failures(self._use_case, profiles)
        suite = expectations.own_suite(self._use_case)
        verdicts = {}
        for key, sources in judged.items():
            curated = {name: one.curated for name, one in sources.items()}
            own = expectations.run_own(self._use_case, suite[1], curated) if suite else []
            verdicts[key] = _Verdict(sources, profiles[key], failed[key], own)
        return verdicts, result

    def _profiled(
        self, period: partitions.Period, judged: Mapping[str, Judged]
    ) -> expectations.Profile:
        profile: expectations.Profile = {
            limit.column: None for limit in expectations.limits(self._use_case)
        }
        for name, one in judged.items():
            profile |= findings.profile(name, one, period)
        for name, versions in self._statics.items():
            fact = self._ingested[period.key].outputs["sources"].get(name, {})
            if fact.get("version") in versions:
                profile |= versions[fact["version"]][0]["profile"]
        return profile

    def _labels(self, context: StageContext, verdict: _Verdict) -> pa.Table:
        if verdict.blocked:
            return label_schema(self._use_case).empty_table()
        if self._use_case.label.sql is None:
            name = str(self._use_case.label.source)
            if self._use_case.sources[name].kind == "static":
                raise ConfigError(
                    f"{self._use_case.name}: label.source {name} is static; labels need events, "
                    "or write label.sql"
                )
            source = verdict.judged.get(name)
            if source is None:
                return label_schema(self._use_case).empty_table()
            return labels.from_column(self._use_case, source.curated, self._con)
        if self._views is None:
            self._views = self._loaded()
        return labels.from_sql(self._use_case, self._views, context.period, self._con)

    def _loaded(self) -> AsOfViews:
        """Load what the label's SQL reads: curated partitions of the lake, and those that were
        judged here.
        """
        names = labels.sources(self._use_case)
        more: dict[str, pa.Table] = {}
        for name in names:
            if self._use_case.sources[name].kind == "static":
                parts = [
                    judged.curated
                    for _, judged in self._statics[name].values()
                    if judged is not None
                ]
            else:
                sound = [verdict for verdict in self._verdicts.values() if not verdict.blocked]
                parts = [
                    verdict.judged[name].curated for verdict in sound if name in verdict.judged
                ]
            if parts:
                more[name] = pa.concat_tables(parts)
        versions = {
            name: self._known_versions(name)
            for name in names
            if self._use_case.sources[name].kind == "static"
        }
        return AsOfViews(
            connect(alone=True),
            self._first.lake,
            self._use_case,
            keys=self._stored,
            sources=names,
            more=more,
            versions=versions,
        )

    def _known_versions(self, name: str) -> set[str]:
        """Return the versions of a static source that the partitions know at their as_of and at
        the start of their interval.
        """
        before = {key: partitions.earlier(self._use_case, key) for key in self._keys}
        asked = {key for key in before.values() if key is not None and key not in self._ingested}
        earlier = {
            row.key: row for row in _results(self._first, "ingest_data", asked)
        } | self._ingested
        found = {self._ingested[key].outputs["sources"][name]["version"] for key in self._keys}
        for key, one in before.items():
            near = (
                one
                if one in earlier
                else max((other for other in earlier if other < key), default=None)
            )
            fact = earlier[near].outputs["sources"].get(name, {}) if near is not None else {}
            found |= {fact["version"]} if "version" in fact else set()
        return {str(version) for version in found}

    def _is_curated(self, key: str) -> bool:
        """Tell whether the lake has the curated rows of a partition, of the raw rows and by the
        rules that there are now.
        """
        result = self._recorded.get(key)
        if (
            result is None
            or result.state not in ("done", "blocked")
            or result.outputs.get("rules") != self._mark
        ):
            return False
        had = {read[0]: read[2] for read in result.reads if read[1] == key}
        facts = self._ingested[key].outputs["sources"]
        return all(
            had.get(self._first.table(f"raw/{name}")) == facts[name]["digest"]
            for name in _label_events(self._first)
            if name in facts
        )

    def _reason(self, verdict: _Verdict) -> str:
        if not verdict.blocked:
            return ""
        told = [
            findings.told(name, self._use_case.sources[name], one, verdict.profile)
            for name, one in verdict.judged.items()
        ]
        said = tuple(f"{name}{mark}" for name in verdict.judged for mark in ":.")
        unsaid = [
            column
            for column in verdict.failed
            if not (column.startswith(said) and findings.explained(column))
        ]
        told += [f"{column} is {verdict.profile[column]}" for column in unsaid]
        told += [
            expectations.own_told(result) for result in verdict.own if expectations.blocks(result)
        ]
        remedy = (
            "mend the source and ingest again with --restate REASON, or change the contract "
            "in the use case"
        )
        return (
            f"blocked: {'; '.join(text for text in told if text)}. See `evergreen quarantine "
            f"list`; {remedy}"
        )

    def _report(self, context: StageContext, verdict: _Verdict) -> str:
        """Keep the result as JSON, and Great Expectations' page for the newest partition; return
        the result's folder.
        """
        folder: Path = context.settings.home / "validation" / self._use_case.name / context.key
        if context.rehearsal:
            return str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        result = expectations.result_of(
            context.key, verdict.profile, verdict.failed, self._use_case, verdict.own
        )
        _write_text(folder / "result.json", json.dumps(result, default=str))
        if self._newest and context is self._contexts[-1]:
            _write_text(
                folder / "index.html",
                expectations.data_docs(self._result, f"{self._use_case.name} {context.key}"),
            )
        return str(folder)


def _ingested(contexts: Sequence[StageContext]) -> dict[str, StageResult]:
    """Return the ingested partitions that works look at, those that came empty (blocked) among
    them.
    """
    keys = {key for context in contexts for key in _asked(context)}
    return {
        result.key: result
        for result in _results(contexts[0], "ingest_data", keys)
        if result.state in ("done", "blocked")
    }


def _results(
    context: StageContext, stage: str, keys: Collection[str] | None = None
) -> list[StageResult]:
    """Return what is recorded of a stage for some partitions (None: for all)."""
    if context.known is not None:
        found = [result for (name, _), result in context.known.items() if name == stage]
        return [result for result in found if keys is None or result.key in keys]
    return context.records.results.of(
        context.use_case.name, stage=stage, keys=None if keys is None else sorted(keys)
    )


def _asked(context: StageContext) -> list[str]:
    """Return the partition and those of its label's lookback."""
    if not _label_events(context):
        return [context.key]
    return sorted(
        {
            context.key,
            *partitions.lookback(context.use_case, context.key, context.use_case.label.lookback),
        }
    )


def _label_events(context: StageContext) -> list[str]:
    """Return the event sources that the label's SQL reads."""
    if context.use_case.label.sql is None:
        return []
    return [
        name
        for name in labels.sources(context.use_case)
        if context.use_case.sources[name].kind == "events"
    ]


def _lookback(context: StageContext, ingested: Mapping[str, StageResult]) -> list[str]:
    """Return the partition and the earlier ones that its labels need.

    Raises:
        MissingPartition: one is not ingested, and a source that is needed allows no gaps.
    """
    events = _label_events(context)
    if not events:
        return [context.key]
    keys = partitions.lookback(context.use_case, context.key, context.use_case.label.lookback)
    sources = [context.use_case.sources[name] for name in events]
    missing = [
        key
        for key in keys
        if key not in ingested
        and any(
            partitions.within(source.history, key) and source.gaps == "fail" for source in sources
        )
    ]
    if missing:
        context.need("ingest_data", missing)
    return [key for key in keys if key in ingested]


def _chunks(contexts: Sequence[StageContext]) -> Iterator[list[StageContext]]:
    """Cut a range into parts that fit into memory."""
    ingested, chunk, rows = _ingested(contexts), list[StageContext](), 0
    for context in contexts:
        rows += sum(
            fact["rows"]
            for fact in ingested[context.key].outputs["sources"].values()
            if "version" not in fact
        )
        chunk.append(context)
        if rows > CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _suite(use_case: UseCase) -> list[Input]:
    """Return the suite of the use case's own expectations, where it has one."""
    suite = expectations.own_suite(use_case)
    return [Input("expectations", use_case.name, suite[0])] if suite else []


@lru_cache(maxsize=1)
def _rules() -> str:
    return combine([memo.code_digest(module) for module in RULES])


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise EvergreenError(
            f"{path}: cannot be written ({error}); free space or mend permissions"
        ) from None


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    compute_range=compute_range,
    outdated=outdated,
    read_back=read_back,
)
