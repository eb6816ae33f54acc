"""Name what a person may do with a release; light, since every DAG file is read with it."""

from __future__ import annotations

from typing import Literal, get_args

Action = Literal["pause", "unpause", "advance", "promote", "abort", "roll back", "freeze", "thaw"]
ACTIONS: tuple[str, ...] = get_args(Action)
