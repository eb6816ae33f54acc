"""Examine an installation: every check at once, each within its time, none hidden by another.

Nothing is written, but for the probe of the object stores that a person asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from include.clock import wait_for
from include.doctor import (
    databases,
    keys,
    machine,
    nodes,
    online,
    places,
    releases,
    servers,
    use_cases,
)
from include.doctor.findings import Check, Finding, Patient, first_line, public
from include.errors import EvergreenError

CHECKS: Mapping[str, Check] = {
    "this machine": machine.examine,
    "secrets": machine.examine_secrets,
    "keys": keys.examine,
    "records": databases.examine_records,
    "audit log": databases.examine_audit,
    "MLflow": databases.examine_mlflow,
    "lake": places.examine_lake,
    "artefacts": places.examine_artefacts,
    "segments": places.examine_segments,
    "online features": online.examine,
    "broker": online.examine_broker,
    "Airflow": servers.examine_airflow,
    "Airflow's database": databases.examine_airflow,
    "serving": servers.examine_serving,
    "nodes": nodes.examine,
    "releases": releases.examine,
    "use cases": use_cases.examine,
}


def examine(patient: Patient, checks: Mapping[str, Check] = CHECKS) -> list[Finding]:
    """Return what all checks find, in their order; one that does not end in time is a finding."""
    running = [_Running(name, check, patient) for name, check in checks.items()]
    for each in running:
        each.start()
    wait_for(lambda: all(each.is_over for each in running), seconds=patient.seconds, every=0.02)
    return [finding for each in running for finding in each.findings()]


class _Running(threading.Thread):
    """A check in a thread of its own; as a daemon, so that nobody waits for one that hangs."""

    def __init__(self, name: str, check: Check, patient: Patient) -> None:
        super().__init__(name=f"doctor {name}", daemon=True)
        self._subject, self._check, self._patient = name, check, patient
        self._found: list[Finding] = []
        self.is_over = False

    def run(self) -> None:
        """Collect the findings one by one: what came before a fault is kept."""
        try:
            for finding in self._check(self._patient):
                self._found.append(finding)
        except EvergreenError as error:
            text, _, remedy = public(str(error)).partition("; ")
            self._found.append(Finding(self._subject, "reachable", "fail", text, remedy))
        except Exception as error:  # noqa: BLE001 - one check that fails must hide no other
            remedy = "mend what it names, then look again"
            self._found.append(
                Finding(self._subject, "reachable", "fail", first_line(error), remedy)
            )
        finally:
            self.is_over = True

    def findings(self) -> Sequence[Finding]:
        """Return what is found so far."""
        if self.is_over:
            return self._found
        found = f"no answer within {self._patient.seconds:.0f} s"
        remedy = "look whether it runs and is reached from here; --seconds waits longer"
        return [*self._found, Finding(self._subject, "reachable", "fail", found, remedy)]
