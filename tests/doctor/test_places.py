"""What the doctor says of folders and stores: full, shut, away, of another time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.doctor import places
from include.doctor.findings import Finding, Patient
from tests.builders.object_stores import S3Store
from tests.builders.ports import free_port


def examined(
    lake_uri: str, *, writes: bool = False, skew: float = 0.0, seconds: float = 15
) -> dict[str, Finding]:
    settings = Settings(home=Path("/nowhere"), lake_uri=lake_uri)
    patient = Patient(settings, lambda: utc_now() - timedelta(seconds=skew), writes, seconds)
    return {one.thing: one for one in places.examine_lake(patient)}


def names(store: S3Store) -> list[str]:
    import s3fs

    return [str(name) for name in s3fs.S3FileSystem(skip_instance_cache=True).find(store.uri)]


def test_a_store_that_answers_is_told_and_nothing_is_written_to_it(s3_store: S3Store) -> None:
    found = examined(f"{s3_store.uri}/lake?token=hidden")
    assert found["place"].verdict == "ok", found
    assert found["place"].found.startswith(f"{s3_store.uri}/lake, answers in")
    assert found["clock"].verdict == "ok"
    assert "conditional put" not in found
    assert names(s3_store) == []


def test_a_second_writer_of_a_name_is_refused_and_the_probe_leaves_nothing(
    s3_store: S3Store,
) -> None:
    assert examined(f"{s3_store.uri}/lake", writes=True)["conditional put"].verdict == "ok"
    assert names(s3_store) == []


def test_a_store_that_takes_two_writers_of_a_name_is_told(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    real = s3fs.S3FileSystem._pipe_file

    async def unconditional(self: object, path: str, data: bytes, **options: object) -> object:
        options.pop("mode", None)
        return await real(self, path, data, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", unconditional)
    found = examined(f"{s3_store.uri}/lake", writes=True)["conditional put"]
    assert found.verdict == "fail"
    assert "would lose rows" in found.found
    assert names(s3_store) == []


@pytest.mark.parametrize(("skew", "verdict"), [(120, "warn"), (-120, "warn"), (7200, "fail")])
def test_the_clock_of_a_store_is_compared(s3_store: S3Store, skew: float, verdict: str) -> None:
    found = examined(s3_store.uri, skew=skew)["clock"]
    assert found.verdict == verdict
    assert ("ahead" if skew > 0 else "behind") in found.found


def test_a_store_that_is_away_or_a_bucket_that_is_not_there_is_told(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (only,) = examined("s3://evergreen-nobody-has-this/lake").values()
    assert (only.thing, only.verdict) == ("place", "fail")
    assert "EVERGREEN_LAKE_URI" in only.remedy
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    (only,) = examined(f"{s3_store.uri}/lake").values()
    assert (only.thing, only.verdict) == ("place", "fail")


def test_a_scheme_that_nobody_reads_is_told(tmp_path: Path) -> None:
    (only,) = examined("nothing://bucket/lake").values()
    assert (only.verdict, "nothing" in only.found) == ("fail", True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told(small_disk: Path) -> None:
    found = examined(str(small_disk / "lake"))["disk"]
    assert found.verdict == "fail"
    assert found.found.startswith("only 0.0 GB are free")
    assert "evergreen gc" in found.remedy


def test_a_disk_that_is_nearly_full_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(places, "NEED_BYTES", int(free * 0.7))
    assert examined(str(tmp_path))["disk"].verdict == "warn"
    monkeypatch.setattr(places, "NEED_BYTES", int(free * 0.1))
    assert examined(str(tmp_path))["disk"].verdict == "ok"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = examined(str(tmp_path / "file" / "lake"))["place"]
    assert found.verdict == "fail"
    assert str(os.getuid()) in found.found


def test_a_store_is_asked_with_what_the_lake_asks_it_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The region, say, may stand in a variable that the client itself does not read."""
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "somebodys")
    assert places.impatient_system("az://container/lake", 1.0).anon is False
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    system = places.impatient_system("s3://bucket/lake", 1.0)
    assert system.client_kwargs["region_name"] == "eu-central-1"
    assert system.config_kwargs["read_timeout"] == 1.0
