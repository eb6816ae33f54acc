"""The columns of raw rows: those that a source declares, by header, and Evergreen's own."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from include.config.names import ROWS, is_ours
from include.config.use_case_sources import Source
from include.errors import ConfigError
from include.pipeline.ingest_outputs import FileHeader

FILE, ROW, ARRIVED, MALFORMED = "source_file", "source_row", "arrived_at", "malformed"
# While rows are compared: whose arrival is guessed, the partition that a late row belongs to, and
# whether it corrects a row on record.
GUESSED, BELONGS, CORRECTS = "__guessed", "__belongs", "__corrects"

# Begins the `source_file` of a row that comes out of quarantine; no file's name can begin so.
REDRIVEN = "redriven://"
# Begins the `source_file` of a late row: `late://PARTITION/FILE`, the closed partition that it
# belongs to.
LATE = "late://"


def headers(source: Source) -> dict[str, str]:
    """Return the names of all columns that a source has to hold, by their header in it.

    Those that are made of others are not among them.

    Raises:
        ConfigError: a column has the name of one of Evergreen's own.
    """
    names = {
        column.header or name: name
        for name, column in source.columns.items()
        if column.is_delivered
    }
    made = {*source.computed, source.row_digest}
    for name in [*source.time_columns, *source.key]:
        if name not in names.values() and name not in made:
            names[name] = name
    taken = [name for name in names.values() if is_ours(name, ROWS)]
    if taken:
        raise ConfigError(
            f"column names {taken} are taken by Evergreen; give the columns another name and say "
            f"header: {taken[0]}"
        )
    return names


@dataclass(frozen=True)
class ColumnDiff:
    """How the columns that came differ from those declared, by header.

    `where` names a file in which each of them is missing, or is found.
    """

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)

    def text(self, source: Source) -> str:
        """Return the difference as a sentence, empty where there is none that counts."""
        parts = [f"missing {name!r} (in {self.where[name]})" for name in self.missing]
        if source.extra == "refuse":
            parts += [f"extra {name!r} (in {self.where[name]})" for name in self.extra]
        parts += [
            f"is {new!r} the renamed {old!r}? then write header: {new} under {old}"
            for old, new in self.renamed
        ]
        return "; ".join(parts)


def column_diff(
    source: Source, seen: Sequence[FileHeader], stored: Collection[str] | None = None
) -> ColumnDiff:
    """Compare the headers that ingestion saw, and the stored columns, with the declared ones."""
    wanted = headers(source)
    where: dict[str, str] = {}
    for header in seen:
        for name in [name for name in wanted if name not in header.columns]:
            where.setdefault(name, header.files[0])
        for name in [name for name in header.columns if name not in wanted]:
            where.setdefault(name, header.files[0])
    kept = wanted if source.row_digest is None else wanted | {source.row_digest: source.row_digest}
    for header_name, name in kept.items():
        if seen and stored is not None and name not in stored:
            where.setdefault(
                header_name,
                "the stored rows: they were ingested before it was declared; ingest them again",
            )
    missing = tuple(name for name in kept if name in where)
    extra = tuple(name for name in where if name not in kept)
    renamed = []
    for name in missing:
        # difflib's own cutoff, which finds abbreviations and added words (`amt`, `is_paid`). It may
        # be wrong: the difference is put to a person as a question, and nothing is renamed.
        alike = difflib.get_close_matches(
            name.lower(), [other.lower() for other in extra], n=1, cutoff=0.6
        )
        renamed += [(name, other) for other in extra if alike and other.lower() == alike[0]]
    return ColumnDiff(missing, extra, tuple(renamed), where)
