"""What the records name in the lake and the store: a place that lacks all of it is not mounted.

A backup of such a place would be whole by its own digests, and hold nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.artefacts.address import Address
from include.artefacts.manifest import NAME as MANIFEST
from include.artefacts.store import SETTING as STORE
from include.backups.trees import Tree
from include.config.settings import Settings
from include.doctor.findings import public
from include.errors import SourceError
from include.object_stores import explained
from include.records.records import Records
from include.records.schema import ResultRow
from include.retention.marks import pinned_versions, versions_of

LAKE = "EVERGREEN_LAKE_URI"
LOG = "/_delta_log"
TOLD = 3  # things that a message names
REMEDY = (
    "mount it, or set {setting} to where it is; if it is lost, restore an earlier backup into an "
    "empty installation, or `evergreen reset` the use cases that it held"
)


def find_missing(
    settings: Settings, records: Records, use_cases: Sequence[str], *, remedy: str = REMEDY
) -> list[str]:
    """Return what the records name and its place lacks: artefacts of models, tables of the lake.

    `remedy` is what a person is to do about a place that lacks all of it; it may name its
    `{setting}`.

    Raises:
        SourceError: a place lacks all that is named in it, or cannot be read.
    """

    def read(session: Session) -> tuple[dict[str, int], list[str]]:
        return _tables(session, use_cases), _addresses(session, use_cases)

    tables, addresses = records.database.read(read)
    lake, store = settings.lake_root.rstrip("/"), settings.store_root
    found = _newest_versions(lake, tables)
    _refuse_empty(lake, LAKE, "tables", tables, found, remedy)
    there = _there(store, addresses)
    _refuse_empty(store, STORE, "artefacts", addresses, there, remedy)
    return [
        *(
            f"table {table} in version {version} (its newest is {found.get(table, 'away')})"
            for table, version in sorted(tables.items())
            if found.get(table, -1) < version
        ),
        *(address for address in addresses if address not in there),
    ]


def told(missing: Sequence[str]) -> str:
    """Return what is missing in words: the first few, and how many more."""
    more = len(missing) - TOLD
    return ", ".join(missing[:TOLD]) + (f" and {more} more" if more > 0 else "")


def _tables(session: Session, use_cases: Sequence[str]) -> dict[str, int]:
    """Return the tables that are named, each with the newest version that is."""
    newest: dict[str, int] = {}
    for use_case in use_cases:
        for table, versions in pinned_versions(session, use_case).items():
            newest[table] = max(versions)
        for table in _written(session, use_case):
            newest.setdefault(table, 0)
    return newest


def _written(session: Session, use_case: str) -> Iterator[str]:
    """Yield the tables into which stages have put rows: there need be no model yet."""
    recorded = select(ResultRow.outputs).where(
        ResultRow.use_case == use_case,
        ResultRow.stage.in_(("ingest_data", "materialize_features")),
        ResultRow.state == "done",
    )
    for outputs in session.scalars(recorded.execution_options(yield_per=100)):
        for name, source in (outputs.get("sources") or {}).items():
            if source.get("rows"):
                yield f"{use_case}/raw/{name}"
        for views in (outputs.get("feature_sets") or {}).values():
            yield from (made["table"] for made in views.values() if made.get("rows"))


def _addresses(session: Session, use_cases: Sequence[str]) -> list[str]:
    """Return the addresses of the artefacts of all models that have their files."""
    found = {
        uri
        for use_case in use_cases
        for each in versions_of(session, use_case)
        if each.collected_at is None
        for uri in (each.bundle_uri, each.reference_uri, each.bento_uri)
        # What a version before kept by its partition may be gone for long.
        if uri is not None and Address.parse(uri).is_digest
    }
    return sorted(found)


def _newest_versions(root: str, tables: Iterable[str]) -> dict[str, int]:
    """Return the newest version that the log of each table has, of those that have one."""
    found: dict[str, int] = {}
    for each in Tree("logs", root, tuple(f"{table}{LOG}" for table in tables)).files():
        table, _, name = each.path.rpartition(f"{LOG}/")
        number = name.partition(".")[0]
        if number.isdecimal():
            found[table] = max(found.get(table, -1), int(number))
    return found


def _there(root: str, addresses: Iterable[str]) -> set[str]:
    tree = Tree("store", root)
    with explained(root, "cannot be read", "mend that, then run it again"):
        return {
            address
            for address in addresses
            if tree.size_of(f"{Address.parse(address).path}/{MANIFEST}") is not None
        }


def _refuse_empty(
    root: str,
    setting: str,
    what: str,
    named: Mapping[str, int] | Sequence[str],
    found: Mapping[str, int] | set[str],
    remedy: str,
) -> None:
    if named and not found:
        raise SourceError(
            f"{public(root)} has none of the {len(named)} {what} that the records name (such as "
            f"{min(named)}): {remedy.format(setting=setting)}"
        )
