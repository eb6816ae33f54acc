"""The whole chain on a lake in an object store comes to the digests of one in a folder."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from include.installation.reset import preview, reset
from include.object_stores import filesystem
from include.pipeline.flow import DATA_STAGES
from tests.builders.installation import TO_JUDGEMENT, Installation, small_repayment
from tests.builders.object_stores import S3Store

DAYS = 64  # from the first partition to a decision whose outcome is known, and a window before it
SHORT = "{exclude: [age_group, gender, missed_share_60d, missed_share_90d]}"


def judged(home: Path, lake_uri: str = "") -> tuple[Installation, dict[tuple[str, str], str]]:
    """Run the chain to a verdict; return the digests by stage and partition."""
    small_repayment(home / "usecases", 250, training=SHORT)
    made = Installation(home, lake_uri=lake_uri)
    first = made.use_case.history.first
    keys = made.keys(first.isoformat(), (first + timedelta(days=DAYS)).isoformat())
    made.load(keys[0], keys[-2])
    made.day(keys[-1])
    results = ((stage, key, made.records.results.get("repayment", key, stage))
               for stage in TO_JUDGEMENT for key in keys)  # fmt: skip
    return made, {(stage, key): found.digest for stage, key, found in results if found is not None}


@pytest.mark.slow
def test_data_of_a_few_days_has_the_same_digests_and_a_reset_leaves_nothing(
    tmp_path: Path, s3_store: S3Store
) -> None:
    digests = []
    for name, uri in (("folder", ""), ("store", f"{s3_store.uri}/lake")):
        small_repayment(tmp_path / name / "usecases", 60)
        made = Installation(tmp_path / name, lake_uri=uri)
        made.load("2026-01-01", "2026-01-04")
        made.day("2026-01-05", DATA_STAGES)
        keys = made.keys("2026-01-01", "2026-01-05")
        digests.append(
            {(stage, key): made.result(stage, key).digest for stage in DATA_STAGES for key in keys}
        )
        assert made.run("validate_data", "2026-01-05").reused
    assert digests[0] == digests[1]
    settings, copies = made.settings, made.settings.lake_copies
    assert not (settings.home / "lake").exists()
    assert preview(settings, made.records, "repayment").folders[f"{uri}/repayment"] > 0
    assert list(copies.rglob("*.parquet")), "what was read lies in the home folder"
    reset(settings, made.records, "repayment", actor="test")
    system, path = filesystem(uri)
    assert system.find(path) == []
    assert not list(copies.rglob("*.parquet"))
    assert preview(settings, made.records, "repayment").empty


@pytest.mark.slow
def test_every_stage_up_to_a_verdict_comes_to_the_same_digests(
    tmp_path: Path, s3_store: S3Store
) -> None:
    _, local = judged(tmp_path / "folder")
    _, remote = judged(tmp_path / "store", f"{s3_store.uri}/lake")
    assert remote == local
    assert len(remote) == 3 * (DAYS + 1) + 2, "data of every day, one model and its verdict"
