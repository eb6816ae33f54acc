"""Report use case files that are broken, as this file's import error; it makes no DAG itself.

The DAGs of the other use cases are not touched by it. `evergreen usecase check FILE` says the same
in a shell.
"""

from __future__ import annotations

from include.errors import ConfigError
from include.orchestration.dag_defaults import broken_use_cases

if problems := broken_use_cases():
    raise ConfigError("these use cases have no airflow dag:\n" + "\n".join(problems))
