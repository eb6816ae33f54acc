"""How plain predictions of one snapshot are read and scored, and the rows that are kept for it.

A plan is made when a snapshot is installed, and dropped with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Protocol, runtime_checkable

import msgspec

from include.features.online_rows import OnlineSet, Value
from include.predictions.line_writer import LineWriter
from include.serving.predict import Features
from include.serving.snapshot import Loaded, Online, RemoteScorer, Served
from include.serving.typed_rows import RowReader, request_decoder, row_reader, row_writer

# Of one state of the online store; beyond either all are forgotten. Of 30 numbers a row has 600
# bytes of JSON, and takes 1.8 KB with its values.
MAX_ROWS, MAX_ROW_BYTES = 4096, 4 * 1024 * 1024
_encode = msgspec.json.Encoder().encode


@runtime_checkable
class ValueScorer(Protocol):
    """A model that can be asked by values alone, in the order of its features."""

    features: list[str]

    def of_values(self, values: Sequence[object]) -> float:
        """Return the probability of a row."""


class StoredRow(msgspec.Struct, gc=False):
    """The online row of an entity as a model reads it, and as the log has it.

    `event_ts` and `expiry`, after which one of its views is stale, are in microseconds since 1970.
    """

    values: Sequence[Value]
    content: bytes
    event_ts: int
    expiry: int


class _Layout:
    """Where the features of a model stand in the rows of an online set."""

    def __init__(self, online_set: OnlineSet, features: Sequence[str]) -> None:
        """Build it; a feature that is not among the columns is a `ValueError`."""
        columns = online_set.columns
        places = [columns.index(name) for name in features]
        self.online_set, self.count = online_set, len(columns)
        self.width = len(columns) + len(online_set.views)
        self.ttls = [online_set.ttls[view.name] for view in online_set.views]
        self.ttl = online_set.ttls.get("", 0)
        self.write = row_writer(columns)
        is_whole = places == list(range(len(columns)))
        # `itemgetter` of one place gives no tuple.
        self.pick: Callable[[Sequence[Value]], Sequence[Value]] = (
            (lambda values: values)
            if is_whole
            else (lambda values: (values[places[0]],))
            if len(places) == 1
            else itemgetter(*places)
        )

    def row(self, event_ts: int, values: Sequence[Value]) -> StoredRow | None:
        """Return a row as it is kept; None: it is of another layout, or no view knows anything."""
        if len(values) != self.width:
            return None
        expiry = event_ts + self.ttl
        if self.ttls:
            times = zip(self.ttls, values[self.count :], strict=True)
            expiries = [int(newest) + ttl for ttl, newest in times if newest is not None]
            if not expiries:
                return None
            expiry = min(expiries)
        columns = values[: self.count]
        content = _encode(self.write(*columns))
        return StoredRow(self.pick(columns), content, event_ts, expiry)


class StoredRows:
    """The online rows of one feature set, as a model reads them; they are kept while they hold."""

    def __init__(self, online: object, feature_set: str, features: Sequence[str]) -> None:
        # Only a store that answers at once: the event loop stands still meanwhile.
        self._online = online if isinstance(online, Online) else None
        self.feature_set, self._features = feature_set, list(features)
        self._layout: _Layout | None = None
        self._state: object = None
        self._rows: dict[object, StoredRow] = {}
        self._room = MAX_ROW_BYTES

    def find(self, entity: object, horizon: int) -> tuple[Sequence[Value], Features] | None:
        """Return an entity's values and what is said of them; None: they are not all fresh.

        `horizon` is in microseconds since 1970.
        """
        online = self._online
        if online is None:
            return None
        # Rows that were read stay as they are until somebody writes to the file: to find, unpack
        # and write down a row takes longer than the model. Whether a row has expired is asked anew.
        state = online.hold()
        if state is not self._state:
            self._forget_rows()
            self._state = state
        row = self._rows.get(entity)
        if row is None:
            row = self._read(online, entity)
        if row is None or horizon > row.expiry:
            return None
        event_ts = row.event_ts
        return row.values, Features({}, event_ts, max(0, horizon - event_ts), [], row.content)

    def _read(self, online: Online, entity: object) -> StoredRow | None:
        """Return the row of an entity from the store, and keep it."""
        online_set = online.describe(self.feature_set)
        found = None if online_set is None else online.get(self.feature_set, str(entity))
        if online_set is None or found is None:
            return None
        layout = self._layout
        if layout is None or layout.online_set is not online_set:
            layout = self._layout = _Layout(online_set, self._features)
        row = layout.row(*found)
        if row is not None:
            self._room -= len(row.content)
            if len(self._rows) >= MAX_ROWS or self._room < 0:
                self._forget_rows()
                self._room -= len(row.content)
            if self._room >= 0:
                self._rows[entity] = row
        return row

    def _forget_rows(self) -> None:
        self._rows.clear()
        self._room = MAX_ROW_BYTES


class Apart:
    """How requests that are meant for the challenger of a release are asked of its process."""

    def __init__(self, challenger: Loaded, remote: RemoteScorer, stored: StoredRows) -> None:
        """Build it; `stored` are the rows of its own feature set."""
        self.model, self.post, self.stored = challenger, remote.post, stored.find

    @classmethod
    def of(cls, served: Served, champions: StoredRows) -> Apart | None:
        """Return it; None where nobody is meant for a challenger, or each needs the long way."""
        release, challenger = served.release, served.challenger
        if release is None or not release.share or challenger is None:
            return None
        remote = challenger.remote
        if remote is None:
            return None
        stored = champions  # of one set, the JSON of its rows is the same for both
        if challenger.feature_set != champions.feature_set:
            stored = StoredRows(served.online, challenger.feature_set, remote.features)
        return cls(challenger, remote, stored)


class Plan:
    """How requests of one snapshot are answered."""

    def __init__(
        self, served: Served, model: Loaded, scorer: ValueScorer, reader: RowReader
    ) -> None:
        self.served, self.model, self.reader = served, model, reader
        self.use_case, self.release = served.use_case.name, served.release
        self.decode = request_decoder(served.use_case.entity.type).decode
        self.has_text_key = served.use_case.entity.type == "string"
        self.score = scorer.of_values
        # What lines are put together by, once one is written: by the arm that answers, and the one
        # that the request was meant for.
        self.lines: dict[tuple[str, str], tuple[LineWriter, bytes]] = {}
        self.rows = StoredRows(served.online, model.feature_set, scorer.features)
        self.stored = self.rows.find
        self.apart = Apart.of(served, self.rows)

    @classmethod
    def of(cls, served: Served) -> Plan | None:
        """Return the plan of a snapshot, or None where each request needs the long way."""
        model = served.champion
        if model is None or not isinstance(model.scorer, ValueScorer):
            return None
        reader = row_reader(model.scorer.features, served.feature_types)
        if reader is None:
            return None
        return cls(served, model, model.scorer, reader)
