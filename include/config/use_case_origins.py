"""Where the rows of a source come from, if from no file: a database, the simulator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from include.config.use_case_columns import Strict


class SqlQuery(Strict):
    """A query that a database answers."""

    url_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] = Field(
        description="Environment variable that holds the SQLAlchemy URL, with its password."
    )
    query: str = Field(
        description="The SELECT that gives the rows, with every declared column and both times."
    )


class Simulated(Strict):
    """A stream of the embedded portfolio simulator."""

    stream: Literal["instalments", "contacts", "accounts"] = Field(
        description="Which table of the simulated portfolio."
    )
    customers: int = Field(default=20_000, ge=1, description="How many customers there are.")
    concept_shift: int | None = Field(
        default=None,
        ge=0,
        description="Day, counted from history.first, from which outcomes follow another rule. "
        "Left out: never.",
    )
