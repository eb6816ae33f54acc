"""A lake in a store that is slow, cuts connections or answers 503: all or nothing, and said."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from include import object_stores
from include.clock import wait_for
from include.errors import SourceError
from include.lake import copies
from include.lake.appended import AppendedTable
from include.lake.commits import Fence
from include.lake.tables import Lake
from include.lake.vacuum import find_unneeded, remove_unneeded, tables_below
from tests.builders.faulty_proxy import Proxy, faulty_proxy
from tests.builders.object_stores import S3Store, forget_connections
from tests.builders.stopwatch import Stopwatch

TABLE = "u/raw/a"
SECRET = "a-secret-of-the-store"
COMMIT = {"method": "PUT", "path": r"_delta_log/\d+\.json"}


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


def fence(token: int = 1) -> Fence:
    return Fence("stage/key", token, lambda: None)


@pytest.fixture(scope="module")
def proxied(s3_endpoint: str) -> Iterator[Proxy]:
    with faulty_proxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def faulty(
    s3_store: S3Store, proxied: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Lake, Proxy]]:
    """A lake that is reached through a proxy, which passes all on at first."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxied.url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(object_stores, "RETRIES", 3)
    monkeypatch.setattr(object_stores, "RETRY_SECONDS", 60)
    monkeypatch.setattr(copies, "_place", [(tmp_path / "copies", 1 << 30)])
    forget_connections()
    proxied.fail()
    yield Lake(f"{s3_store.uri}/lake"), proxied
    proxied.fail()


def ids(lake: Lake) -> list[int]:
    return sorted(Lake(lake.root).read(TABLE)["id"].to_pylist())


@pytest.mark.parametrize("is_new", [True, False])
def test_a_commit_whose_answer_is_lost_is_found_and_not_made_twice(
    faulty: tuple[Lake, Proxy], is_new: bool
) -> None:
    lake, proxy = faulty
    before = -1 if is_new else lake.replace(TABLE, "2026-01-01", rows(0))
    proxy.fail({**COMMIT, "do": "lose", "times": 1})
    version = lake.replace(TABLE, "2026-01-01", rows(1, 2), fence=fence())
    assert proxy.counts() == [1], "the answer was lost"
    assert version == before + 1 == lake.version(TABLE), "one version more, and no second one"
    assert ids(lake) == [1, 2]


def test_of_two_writers_that_make_a_table_at_once_the_later_ones_rows_are_there_alone(
    faulty: tuple[Lake, Proxy],
) -> None:
    """The library would put the later commit on top of the earlier one, and keep both's rows."""
    lake, proxy = faulty
    proxy.fail({**COMMIT, "do": "hold", "times": 1})
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(Lake(lake.root).replace, TABLE, "2026-01-01", rows(1), fence=fence(2))
        try:
            assert wait_for(lambda: proxy.counts() == [1], seconds=60, every=0.02)
            assert lake.replace(TABLE, "2026-01-01", rows(2), fence=fence(1)) == 0
        finally:
            proxy.release()
        assert late.result() == 1
    assert ids(lake) == [1]


def test_rows_that_are_appended_with_a_lost_answer_are_there_once(
    faulty: tuple[Lake, Proxy],
) -> None:
    lake, proxy = faulty
    table = AppendedTable(lake, TABLE, key="id", statistics=["id"])

    def append(number: int) -> None:
        body = rows(number).append_column("partition", pa.array(["2026-01-01"]))
        table.append(body.schema, lambda: iter(body.to_batches()), fence())

    for number in range(3):  # the first makes the table
        proxy.fail({**COMMIT, "do": "lose", "times": 1})
        append(number)
        assert proxy.counts() == [1]
    assert ids(lake) == [0, 1, 2]
    assert lake.version(TABLE) == 2


@pytest.mark.parametrize("how", [{"do": "status", "status": 503}, {"do": "cut"}])
def test_a_store_that_fails_for_a_moment_is_asked_again(
    faulty: tuple[Lake, Proxy], how: dict[str, object]
) -> None:
    lake, proxy = faulty
    lake.replace(TABLE, "2026-01-01", rows(0))
    proxy.fail({"method": "PUT", "times": 2, **how}, {"method": "GET", "times": 2, **how})
    lake.replace(TABLE, "2026-01-01", rows(1))
    assert ids(lake) == [1]
    assert proxy.counts() == [2, 2]
    assert lake.version(TABLE) == 1


@pytest.mark.parametrize("how", [{"do": "status", "status": 503, "body": SECRET}, {"do": "cut"}])
@pytest.mark.parametrize("path", [r"\.parquet", r"_delta_log"])
def test_a_store_that_takes_no_writes_ends_in_an_error_and_the_old_rows(
    faulty: tuple[Lake, Proxy], how: dict[str, object], path: str
) -> None:
    lake, proxy = faulty
    lake.replace(TABLE, "2026-01-01", rows(0))
    proxy.fail({"method": "PUT", "path": path, **how})
    stopwatch = Stopwatch()
    with pytest.raises(
        SourceError, match=r"lake/u/raw/a: cannot be written.*store answers"
    ) as told:
        lake.replace(TABLE, "2026-01-01", rows(1), fence=fence())
    assert stopwatch.seconds < 20
    assert SECRET not in str(told.value)
    assert "\x1b" not in str(told.value)
    proxy.fail()
    assert ids(lake) == [0]
    lake.replace(TABLE, "2026-01-01", rows(1), fence=fence())
    assert ids(lake) == [1], "the same run, tried again"


def test_a_number_in_a_name_is_not_taken_for_the_stores_answer(
    faulty: tuple[Lake, Proxy],
) -> None:
    lake, proxy = faulty
    proxy.fail({**COMMIT, "do": "status", "status": 503})
    with pytest.raises(SourceError, match=r"a-501: cannot be written.*store answers"):
        lake.replace("u/raw/a-501", "2026-01-01", rows(1))


def test_a_store_that_deletes_nothing_ends_a_vacuum_in_an_error(
    faulty: tuple[Lake, Proxy],
) -> None:
    lake, proxy = faulty
    for number in (1, 2):
        lake.replace(TABLE, "2026-01-01", rows(number))
    unneeded = find_unneeded(lake, TABLE, list, hours=0)
    assert unneeded is not None
    proxy.fail({"method": "POST|DELETE|PUT", "do": "status", "status": 503})
    with pytest.raises(SourceError, match=r"u/raw/a: files cannot be deleted .*storage answers"):
        remove_unneeded(lake, unneeded, hours=0)
    proxy.fail()
    assert ids(lake) == [2]
    remove_unneeded(lake, unneeded, hours=0)
    assert find_unneeded(lake, TABLE, list, hours=0) is None


def test_a_store_that_fails_in_the_middle_of_a_cleaning_is_named(
    faulty: tuple[Lake, Proxy],
) -> None:
    """The table is opened, and its log read, before the store goes away."""
    lake, proxy = faulty
    table = AppendedTable(lake, TABLE, key="id", statistics=["id"])
    body = rows(1).append_column("partition", pa.array(["2026-01-01"]))
    table.append(body.schema, lambda: iter(body.to_batches()), fence())
    for number in (2, 3):
        lake.replace("u/raw/b", "2026-01-01", rows(number))
    unneeded = find_unneeded(lake, "u/raw/b", list, hours=0)
    assert unneeded is not None
    files = {"method": "GET", "path": "^(?!.*_delta_log).*list-type=2"}
    proxy.fail({**files, "do": "status", "status": 503})
    with pytest.raises(SourceError, match=r"u/raw/a: cannot be written .*store answers"):
        table.clean(hours=0)
    with pytest.raises(SourceError, match=r"u/raw/b: files cannot be deleted .*storage answers"):
        remove_unneeded(lake, unneeded, hours=0)


@pytest.mark.parametrize("how", [{"do": "status", "status": 503}, {"do": "cut"}, {"do": "half"}])
def test_a_store_that_gives_no_file_ends_in_an_error_and_no_part_of_a_copy(
    faulty: tuple[Lake, Proxy], how: dict[str, object], tmp_path: Path
) -> None:
    lake, proxy = faulty
    lake.replace(TABLE, "2026-01-01", rows(*range(1000)))
    proxy.fail({"method": "GET", "path": r"\.parquet", **how})
    with pytest.raises(SourceError, match=r"parquet: cannot be read .*check that the store answer"):
        ids(lake)
    assert not [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]
    proxy.fail({"method": "GET", "path": r"\.parquet", "times": 2, **how})
    assert len(ids(lake)) == 1000, "what is cut twice is asked for a third time"


def test_a_store_that_does_not_answer_is_named_by_whoever_reads_or_lists(
    faulty: tuple[Lake, Proxy],
) -> None:
    lake, proxy = faulty
    lake.replace(TABLE, "2026-01-01", rows(0))
    proxy.fail({"method": "GET", "do": "status", "status": 503})
    with pytest.raises(SourceError, match=r"s3://.*/lake/u/raw/a: cannot be read"):
        lake.keys(TABLE)
    with pytest.raises(SourceError, match=r"s3://.*/lake/u/raw/a: cannot be read"):
        Lake(lake.root).exists(TABLE)
    with pytest.raises(SourceError, match=r"s3://.*/lake: cannot be listed"):
        tables_below(lake, "u")
    with pytest.raises(SourceError, match="cannot be read"):
        find_unneeded(lake, TABLE, list, hours=0)


@pytest.mark.slow
def test_a_slow_store_gives_what_a_quick_one_gives(faulty: tuple[Lake, Proxy]) -> None:
    lake, proxy = faulty
    proxy.fail({"do": "delay", "seconds": 0.25})
    lake.replace(TABLE, "2026-01-01", rows(1), fence=fence())
    lake.replace(TABLE, "2026-01-01", rows(2), fence=fence())
    assert ids(lake) == [2]
    assert lake.version(TABLE) == 1, "nothing was sent twice because it was slow"


def test_a_commit_that_comes_after_its_writer_gave_it_up_stays_whole_and_once(
    faulty: tuple[Lake, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, proxy = faulty
    lake.replace(TABLE, "2026-01-01", rows(0))
    proxy.fail({**COMMIT, "do": "hold", "times": 1})
    with monkeypatch.context() as impatient:
        impatient.setattr(object_stores, "REQUEST_SECONDS", 3)
        with pytest.raises(SourceError, match=r"cannot be written.*timed out"):
            Lake(lake.root).replace(TABLE, "2026-01-01", rows(1), fence=fence())
    proxy.release()  # the request is passed on now
    assert wait_for(lambda: ids(lake) == [1], seconds=60, every=0.2)
    lake.replace(TABLE, "2026-01-01", rows(1), fence=fence())
    assert ids(lake) == [1], "the same run, tried again"


def test_a_store_without_conditional_puts_is_refused_and_not_written_over(
    faulty: tuple[Lake, Proxy],
) -> None:
    lake, proxy = faulty
    lake.replace(TABLE, "2026-01-01", rows(0))
    proxy.fail(
        {
            **COMMIT,
            "do": "status",
            "status": 501,
            "body": "<Error><Code>NotImplemented</Code></Error>",
        }
    )
    with pytest.raises(SourceError, match=r"the store refuses conditional puts.*If-None-Match"):
        lake.replace(TABLE, "2026-01-01", rows(1))
    proxy.fail()
    assert ids(lake) == [0]
