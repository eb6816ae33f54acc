"""What the leak gate finds: each with its evidence and a remedy, told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from include.config.remedies import remedy, yaml_line
from include.config.use_case import UseCase
from include.errors import ConfigError
from include.pipeline.training_outputs import LeakFinding, Leaks

Level = Literal["refusal", "question"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with features, why it is thought so, and the YAML that mends it."""

    kind: str
    level: Level
    columns: tuple[str, ...]
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.evidence}. {self.remedy}"

    def recorded(self) -> LeakFinding:
        """Return the finding as it is recorded."""
        return LeakFinding(
            kind=self.kind,
            level=self.level,
            columns=list(self.columns),
            evidence=self.evidence,
            remedy=self.remedy,
        )


@dataclass(frozen=True)
class Findings:
    """All findings of a gate, and the numbers behind them."""

    use_case: str
    found: tuple[Finding, ...] = ()
    feature_auc: Mapping[str, float] = field(default_factory=dict)  # by itself, either way
    gains: Mapping[str, float] = field(default_factory=dict)  # AUC lost without the feature
    random_auc: float | None = None  # of the small model, on entities that it has not seen
    excluded: tuple[str, ...] = ()  # what the use case excludes already

    @property
    def refusals(self) -> list[Finding]:
        """What ends training."""
        return [finding for finding in self.found if finding.level == "refusal"]

    @property
    def questions(self) -> list[Finding]:
        """What a person should look at."""
        return [finding for finding in self.found if finding.level == "question"]

    @property
    def carriers(self) -> list[str]:
        """The five features that carry the model most: by what is lost without them, then alone."""
        strongest = sorted(
            self.feature_auc, key=lambda name: (-self.gains.get(name, 0.0), -self.feature_auc[name])
        )
        return strongest[:5]

    def recorded(self) -> Leaks:
        """Return the findings as they are recorded."""
        return Leaks(
            found=[finding.recorded() for finding in self.found],
            gains=dict(self.gains),
            random_auc=self.random_auc,
            carriers=self.carriers,
        )

    def refuse(self) -> None:
        """Raise ConfigError with every refusal, and one line that mends them all."""
        if not self.refusals:
            return
        refused = [finding.columns[0] for finding in self.refusals]
        # Without doubles, in their order: a column may be refused for two reasons.
        excluded = dict.fromkeys([*self.excluded, *refused])
        line = yaml_line(("training", "exclude"), list(excluded))
        lines = [f"- {finding}" for finding in self.refusals]
        head = f"{self.use_case}: {len(lines)} of its features cannot be trained on"
        raise ConfigError("\n".join([head, *lines, f"To leave all of them out, write `{line}`"]))


def without_prose(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training's judged outputs, its findings without the words that people read.

    Digests are over what was found, so another wording gives no other digest.
    """
    recorded = numbers.get("leaks")
    if not recorded:
        return dict(numbers)
    stable = [
        {name: finding[name] for name in ("kind", "level", "columns")}
        for finding in recorded.get("found", ())
    ]
    return {**numbers, "leaks": {**recorded, "found": stable}}


def level_of(use_case: UseCase, *names: str) -> Level:
    """Return how grave a finding is: a question, where a person says the column is known."""
    return "question" if set(names) & set(use_case.training.known_at_decision) else "refusal"


def exclude(use_case: UseCase, name: str) -> str:
    """Return the line that leaves a column out, beside those that are left out already."""
    return remedy(("training", "exclude"), [*use_case.training.exclude, name])


def known(use_case: UseCase, *names: str) -> str:
    """Return the line by which a person says that columns are known at the decision."""
    others = dict.fromkeys([*use_case.training.known_at_decision, *names])
    return remedy(("training", "known_at_decision"), list(others))


def ask_when_written(use_case: UseCase, name: str) -> str:
    """Return the question, and what to write by its answer."""
    return (
        f"Was it written after the outcome? Then write {exclude(use_case, name)}; if it truly is "
        f"known at the decision, {known(use_case, name)}"
    )
