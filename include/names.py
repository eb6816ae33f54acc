"""What use cases, their parts and columns may be called: safe in paths, SQL, YAML and HTML alike."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

NAME = r"^[a-z][a-z0-9_]{0,47}$"
COLUMN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"

Name = Annotated[str, Field(pattern=NAME)]
ColumnName = Annotated[str, Field(pattern=COLUMN)]
