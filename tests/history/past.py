"""Record a small history, or say what one holds: `python -m tests.history.past record|digests|again
FOLDER`.

The simulated portfolio; all days loaded, three nights live and one old day backfilled. The first
night's model serves, both later ones are judged against a champion. Digests are of every partition
of every table, every stage, model and verdict: two versions of the code, or one installation before
and after its records are migrated, are compared by them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from include.pipeline import flow, ranges, runner
from tests.builders.installation import DATA_STAGES, TO_JUDGEMENT, Installation, small_repayment
from tests.builders.ports import free_port
from tests.builders.serving import Node

FIRST = date(2026, 1, 1)


def record(home: Path, *, days: int = 100, customers: int = 1000) -> Installation:
    """Record the history in an empty folder and return its installation."""
    keys = [(FIRST + timedelta(days=number)).isoformat() for number in range(days)]
    past, nights, old = keys[:-3], keys[-3:], keys[-6]
    small_repayment(home / "usecases", customers, history=f"{{first: {keys[0]}, last: {keys[-1]}}}")
    made = Installation(home, "repayment", node_port=free_port())
    made.load(past[0], past[-1])
    with _node(made):
        for night in nights:
            made.day(night, flow.STAGES, mode="live", target="deployed")
    made.day(old, TO_JUDGEMENT)
    return made


def digests(made: Installation) -> dict[str, Any]:
    """Return everything that must not change: digests by stage and partition, table and
    partition, model and verdict.
    """
    results = made.records.results.of(made.name)
    verdicts = [result for result in results if result.stage in ("evaluate_model", "check_drift")]
    return {
        "stages": [
            # a package's digest is over the code that it ships, too
            [
                result.stage,
                result.key,
                result.state,
                "" if result.stage == "package_model" else result.digest,
            ]
            for result in results
        ],
        "tables": {
            f"{table} {key}": digest for (table, key), digest in sorted(made.digests().items())
        },
        "models": [
            [model.version, model.partition, model.state, model.model_digest]
            for model in made.records.models.of(made.name)
        ],
        "verdicts": {
            f"{result.stage} {result.key}": result.outputs["verdict"] for result in verdicts
        },
        "route": [
            made.records.routes.get(made.name).champion,
            made.records.routes.get(made.name).watermark,
        ],
    }


def cpu() -> str:
    """Return a digest of what numpy uses of the processor: another one may round a model's last
    digit otherwise.
    """
    from numpy._core._multiarray_umath import __cpu_features__

    return hashlib.sha256(json.dumps(__cpu_features__, sort_keys=True).encode()).hexdigest()[:12]


def again(made: Installation, stages: Sequence[str] = flow.STAGES) -> dict[str, bool]:
    """Run recorded stages again and return whether the record still stood for them, as it does
    for the code that made it.
    """
    stood: dict[str, bool] = {}
    with _node(made):
        for stage in stages:
            keys = [result.key for result in made.records.results.of(made.name, stage=stage)]
            if stage in DATA_STAGES:
                reports = list(ranges.run_range(stage, made.name, keys, settings=made.settings))
            else:
                reports = [
                    runner.run(stage, made.name, key, settings=made.settings) for key in keys
                ]
            stood |= {f"{stage} {report.key}": report.reused for report in reports}
    return stood


@contextmanager
def _node(made: Installation) -> Iterator[None]:
    node = Node(made.settings)
    node.start()
    try:
        yield
    finally:
        node.stop()


if __name__ == "__main__":
    command, folder = sys.argv[1:3]
    home = Path(folder).resolve()
    if command == "record":
        made = record(
            home, **{name: int(value) for name, value in (word.split("=") for word in sys.argv[3:])}
        )
    else:
        made = Installation(home, "repayment", node_port=free_port())
        if command == "again":
            stood = again(made)
            sys.stderr.write(f"{sum(stood.values())} of {len(stood)} results stood\n")
    sys.stdout.write(json.dumps({"cpu": cpu(), **digests(made)}, indent=1) + "\n")
