"""Files of a source in an object store are read like those beside the YAML: all, or an error."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.errors import SourceError
from include.ingestion import remote_files
from include.ingestion.file_reader import FileReader
from include.ingestion.remote_files import list_remote_files
from include.ingestion.sources import stamps_of
from include.object_stores import filesystem
from tests.builders.azure_store import azure_server, make_container
from tests.builders.faulty_proxy import Proxy, faulty_proxy
from tests.builders.intake import GOOD, HEAD, Intake
from tests.builders.object_stores import S3Store, forget_connections
from tests.ingestion.test_sources import HEADER, ROW, TEXT, case, rows, texts

CSV = f"{HEADER}\n{ROW}\n".encode()
SECRET = "a-secret-of-the-store"


@pytest.fixture(scope="module")
def azure_port() -> Iterator[int]:
    with azure_server() as port:
        yield port


@pytest.fixture(params=["s3", "azure"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "s3":
        yield request.getfixturevalue("s3_store").uri
    else:
        made = make_container(request.getfixturevalue("azure_port"))
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made.uri
    forget_connections()


def put(uri: str, content: bytes) -> None:
    system, path = filesystem(uri)
    system.pipe_file(path, content)


def test_a_partitions_file_a_packed_one_and_a_glob_are_read(store: str, tmp_path: Path) -> None:
    put(f"{store}/in/2026-01-01.csv", CSV)
    put(f"{store}/in/2026-01-02.csv.gz", gzip.compress(CSV, mtime=0))
    put(f"{store}/in/_SUCCESS", b"")
    assert texts(rows(tmp_path, f"path: {store}/in/{{partition}}.csv")) == [TEXT]
    found = rows(tmp_path, f"path: {store}/in/{{partition}}.csv.gz", "2026-01-02")
    assert texts(found) == [TEXT]
    assert found[0]["source_file"] == f"{store}/in/2026-01-02.csv.gz"
    assert texts(rows(tmp_path, f"path: {store}/in/*")) == [TEXT, TEXT]
    assert rows(tmp_path, f"path: {store}/in/{{partition}}.csv", "2026-01-05") == []
    with pytest.raises(SourceError, match=r"matches no file; check the address"):
        rows(tmp_path, f"path: {store}/out/*.csv")


def test_a_file_that_is_written_again_has_another_stamp(store: str, tmp_path: Path) -> None:
    def stamp() -> str:
        use_case = case(tmp_path, f"path: {store}/in/{{partition}}.csv")
        with FileReader() as reader:
            settings = Settings(home=tmp_path)
            (stamp,) = stamps_of("orders", use_case, settings, "2026-01-01", reader).values()
        return stamp

    put(f"{store}/in/2026-01-01.csv", CSV)
    first = stamp()
    assert stamp() == first
    put(f"{store}/in/2026-01-01.csv", CSV.replace(b"2.50", b"2.51"))
    assert stamp() != first, "the same size, another content"


def test_rows_that_come_late_into_a_store_are_taken_as_those_of_a_folder_are(
    s3_store: S3Store, tmp_path: Path
) -> None:
    made = Intake(tmp_path, path=f"{s3_store.uri}/in/{{partition}}.csv")
    lines = GOOD.splitlines(keepends=True)
    put(f"{s3_store.uri}/in/2026-01-01.csv", (HEAD + lines[0]).encode())
    put(f"{s3_store.uri}/in/2026-01-02.csv", (HEAD + lines[2]).encode())
    assert made.ingest("2026-01-01").state == "done"
    put(f"{s3_store.uri}/in/2026-01-01.csv", (HEAD + lines[0] + lines[1]).encode())
    assert made.ingest("2026-01-02").state == "done"
    assert [row["order_id"] for row in made.raw("2026-01-01")] == ["1"], "it stays closed"
    assert sorted(row["order_id"] for row in made.raw("2026-01-02")) == ["2", "3"]
    assert made.ingest("2026-01-02").reused, "nothing has changed since"


@pytest.fixture
def faulty(
    s3_store: S3Store, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Proxy]]:
    put(f"{s3_store.uri}/in/2026-01-01.csv", CSV)
    with faulty_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 2)  # its pauses grow
        forget_connections()
        yield s3_store.uri, proxy


@pytest.mark.parametrize("do", ["cut", "half", "lose"])
def test_a_file_that_is_cut_off_is_fetched_again_and_then_told(
    faulty: tuple[str, Proxy], tmp_path: Path, do: str
) -> None:
    uri, proxy = faulty
    of_file = {"method": "GET", "path": r"2026-01-01\.csv", "do": do}
    proxy.fail({**of_file, "times": 1})
    assert texts(rows(tmp_path, f"path: {uri}/in/{{partition}}.csv")) == [TEXT]
    assert proxy.counts() == [1]
    proxy.fail(of_file)
    with pytest.raises(SourceError, match=r"source orders: path .* cannot be reached") as told:
        rows(tmp_path, f"path: {uri}/in/{{partition}}.csv")
    assert SECRET not in str(told.value)


@pytest.mark.parametrize("path", ["in/{partition}.csv", "in/*.csv"])
def test_a_store_that_does_not_answer_is_no_empty_delivery(
    faulty: tuple[str, Proxy], tmp_path: Path, path: str
) -> None:
    uri, proxy = faulty
    proxy.fail({"do": "status", "status": 503})
    with pytest.raises(SourceError, match="cannot be reached"):
        rows(tmp_path, f"path: {uri}/{path}")


def test_a_disk_without_room_for_a_file_is_named(
    s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{s3_store.uri}/in/2026-01-01.csv", CSV)
    monkeypatch.setattr(remote_files, "_target", lambda *_: Path("/dev/full"))
    with pytest.raises(SourceError, match=r"has no room for the file; free space there"):
        rows(tmp_path, f"path: {s3_store.uri}/in/{{partition}}.csv")


def test_more_files_than_are_read_are_refused_before_any_is_fetched(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        put(f"{s3_store.uri}/in/{number}.csv", CSV)
    monkeypatch.setattr(remote_files, "MAX_FILES", 2)
    with pytest.raises(SourceError, match=r"shop matches 3 files; at most 2 are read"):
        list_remote_files(f"{s3_store.uri}/in/*", "shop")
