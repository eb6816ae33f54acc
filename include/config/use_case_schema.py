"""The JSON schema of use case files, for people, editors and the reference page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from include.config.durations import format_duration
from include.config.use_case import UseCase


class _Schema(GenerateJsonSchema):
    """Writes the default of a duration as a file does: `2h`, where pydantic has ISO 8601."""

    def encode_default(self, dft: Any) -> Any:
        """Return a default as JSON has it."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def use_case_schema() -> dict[str, Any]:
    """Return the JSON schema: every field with its type, limits, default and description."""
    return UseCase.model_json_schema(schema_generator=_Schema)
