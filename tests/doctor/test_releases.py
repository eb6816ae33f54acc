"""What the doctor says of releases and probations that wait for a person."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import update

from include.clock import utc_now
from include.config.settings import Settings
from include.doctor import releases
from include.doctor.findings import Finding, Patient
from include.records.evidence_schema import ProbationRow
from include.records.records import Records
from include.records.schema import ReleaseRow
from tests.records.builders import entry
from tests.records.released import PLAN, in_step, serve


def examined(settings: Settings) -> dict[str, Finding]:
    return {one.thing: one for one in releases.examine(Patient(settings, utc_now, seconds=60))}


def test_a_release_that_waits_for_a_person_and_an_outcome_that_nobody_judged_are_told(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path)
    assert examined(settings) == {}, "there are no records yet, which their own check tells"
    records = Records.open(settings.records_address)
    records.migrate()
    serve(records)
    release = in_step(records, 1, plan={**PLAN, "probation": 86_400.0})
    found = examined(settings)["loans"]
    assert (found.verdict, found.found.startswith("model 3 is running")) == ("ok", True)
    for column, word in (("paused", "release unpause"), ("suspended", "the causes")):
        with records.transaction() as session:
            session.execute(update(ReleaseRow).values({column: True}))
        found = examined(settings)["loans"]
        assert (found.verdict, word in found.remedy) == ("warn", True)
        with records.transaction() as session:
            session.execute(update(ReleaseRow).values({column: False}))
    release = records.releases.running("loans") or release
    records.releases.promote(release, entry("release.promoted"), None)
    found = examined(settings)["loans, probation"]
    assert (found.verdict, "is judged from" in found.found) == ("ok", True)
    with records.transaction() as session:
        session.execute(update(ProbationRow).values(matures_at=utc_now() - timedelta(days=1)))
    found = examined(settings)["loans, probation"]
    assert found.verdict == "warn"
    assert found.remedy == "`evergreen release probation loans 3 --good` or `--bad`"
    with records.transaction() as session:
        session.execute(update(ProbationRow).values(state="regressed", reason="auc .1 lost"))
    found = examined(settings)["loans, probation"]
    assert (found.verdict, found.remedy) == ("warn", "`evergreen rollback loans`")
    assert "auc .1 lost" in found.found
