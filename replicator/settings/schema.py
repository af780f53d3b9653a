"""The JSON schema of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from replicator.settings.model import Settings

if TYPE_CHECKING:
    from pydantic_core import core_schema


class _Closed(GenerateJsonSchema):
    """A name that matches none of the patterns of its mapping is refused, as the program does."""

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        return {**found, "additionalProperties": False} if "patternProperties" in found else found


def settings_schema() -> dict[str, Any]:
    """The schema of everything that a configuration may hold."""
    return Settings.model_json_schema(schema_generator=_Closed)
