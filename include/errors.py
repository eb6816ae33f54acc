"""Define the error tree: every message names the offending thing and the remedy.

EvergreenError                  exit code 1: anything that Evergreen itself refuses
├── ConfigError                 exit code 2: a setting, a use case file or an argument is wrong
├── SourceError                 exit code 3: a source cannot be read, or is not what was declared
├── RestatementRefused          exit code 4: a recorded partition would change, without a reason
├── MissingPartition            exit code 5: partitions that are needed are not there, nor coming
├── Busy                        exit code 6: somebody else is at work on it, or has fenced us off
├── Conflict                    exit code 7: a compare-and-set lost; the state has moved on
├── ArtefactError               exit code 8: a model artefact is damaged, refused or not as recorded
└── Unavailable                 exit code 9: a service that is needed does not answer

`evergreen try` ends with 10 where the gate fails a model, and with 11 where it holds it: that is no
error.
"""

from __future__ import annotations

from collections.abc import Sequence


class EvergreenError(Exception):
    """Base of everything that Evergreen refuses; `exit_code` is what a command ends with."""

    exit_code = 1


class ConfigError(EvergreenError):
    """A setting, a use case file or an argument is wrong."""

    exit_code = 2


class SourceError(EvergreenError):
    """A source cannot be read, or does not hold what was declared."""

    exit_code = 3


class RestatementRefused(EvergreenError):
    """A recorded partition would change although no reason for a restatement was given."""

    exit_code = 4


class MissingPartition(EvergreenError):
    """Partitions that a stage needs are not there; `keys` names them."""

    exit_code = 5

    def __init__(self, message: str, *, keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


class Busy(EvergreenError):
    """Another process holds the lease, or a newer one has fenced this one off."""

    exit_code = 6


class Conflict(EvergreenError):
    """A compare-and-set lost: the state that was read has moved on.

    `judge_again` is set where a judgement was overtaken: (model version, generation of the routing
    row) to judge it in.
    """

    exit_code = 7

    def __init__(self, message: str, *, judge_again: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.judge_again = judge_again


class ArtefactError(EvergreenError):
    """A model artefact is damaged, of a refused type, or does not have its recorded digest."""

    exit_code = 8


class Unavailable(EvergreenError):
    """A service that is needed (Airflow, MLflow, the serving node, a database) does not answer."""

    exit_code = 9
