"""The command `doctor`: what this installation uses, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import current_settings
from include.cli.output import json_option, print_json, print_line, print_table, without_secrets
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.doctor.findings import Finding

KEYS = ("subject", "thing", "verdict", "found", "remedy")


def doctor(
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Also put one object into each object store under doctor/, twice, and remove it.",
        ),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", min=1, help="Wait so long for what is slow."),
    ] = 10.0,
    json: Annotated[bool, json_option(KEYS)] = False,
) -> None:
    """Look at everything that this installation uses, with a verdict and a remedy each.

    Databases, lake and stores, online features, Airflow, nodes, clocks, disks, secrets and use
    cases, all at once. It writes nothing. Ends with 1 where something fails; a warning is none.
    """
    from include.clock import utc_now
    from include.doctor.examine import examine
    from include.doctor.findings import Patient

    try:
        settings = current_settings()
    except ConfigError as error:
        _show([_wrong_setting(error)], json)
        raise typer.Exit(1) from None
    patient = Patient(settings, utc_now, writes=write, seconds=seconds)
    findings = examine(patient)
    _show(findings, json)
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


def _wrong_setting(error: ConfigError) -> Finding:
    from include.doctor.findings import Finding

    text, _, remedy = str(error).rpartition("; ")
    return Finding("settings", "values", "fail", text, remedy)


def _show(findings: list[Finding], json: bool) -> None:
    if json:
        print_json(
            {name: without_secrets(getattr(finding, name)) for name in KEYS} for finding in findings
        )
        return
    rows, before = [], ""
    for finding in findings:
        text = finding.found
        if finding.verdict != "ok" and finding.remedy:
            text = f"{text}\n→ {finding.remedy}"
        subject = "" if finding.subject == before else finding.subject
        rows.append((subject, finding.thing, finding.verdict, without_secrets(text)))
        before = finding.subject
    print_table(("what", "", "verdict", "found"), rows)
    counts = Counter(finding.verdict for finding in findings)
    parts = [f"{counts['ok']} ok", f"{counts['warn']} to look at", f"{counts['fail']} failed"]
    print_line(f"\n{', '.join(parts)}")
