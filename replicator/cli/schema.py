"""`replicator schema`: the configuration's JSON schema or the API's document, and whether a file still is it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED
from replicator.settings.schema import settings_schema


def schema_text() -> str:
    """The schema as it is stored: sorted and indented."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **settings_schema()}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def print_schema(stored: Path | None, *, api: bool = False) -> int:
    """Print the schema, or the OpenAPI document of the admin API, or compare it with a file."""
    if api:
        from replicator.admin.api.openapi import openapi_text

        text, option = openapi_text(), " --api"
    else:
        text, option = schema_text(), ""
    if stored is None:
        sys.stdout.write(text)
        return EXIT_STOPPED
    try:
        same, why = stored.read_text(encoding="utf-8") == text, "is not the schema of this version"
    except OSError as error:
        same, why = False, f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        same, why = False, "is not the schema of this version"
    if same:
        return EXIT_STOPPED
    sys.stderr.write(f"{stored}: {why}; write it again: replicator schema{option} > {stored}\n")
    return EXIT_FAULT
