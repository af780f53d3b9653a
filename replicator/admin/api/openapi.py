"""The OpenAPI document of the admin API, made of the table that routes its requests."""

from __future__ import annotations

import json
from typing import Any

from replicator.admin.api.endpoints import PREFIX, Endpoint, Field
from replicator.admin.api.moves import MOVES
from replicator.admin.api.reads import READS
from replicator.admin.api.schemas import Schemas
from replicator.admin.api.writes import WRITES

ENDPOINTS = (*READS, *WRITES, *MOVES)
"""Every operation of the API."""

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong and what helps, in a sentence"},
        "exit_code": {"type": "integer", "description": "of the command that does the same"},
    },
}
_ERRORS = {
    "400": "A parameter or the body is not valid",
    "401": "A token is missing or wrong",
    "403": "The token, the Host or the Origin does not allow it",
    "404": "There is no such thing",
    "409": "The world is not as it should be",
    "429": "Too many wrong tokens from this address",
    "503": "Something does not answer, or too many requests are under way",
}
_ABOUT = (
    "What the commands of replicator do, over HTTP, by the same functions. An answer is what the command prints with"
    " --json, without values of items. A request that changes something needs a token whose access is write, and"
    " Content-Type application/json; it is noted in the audit before it is done."
)


def openapi_document() -> dict[str, Any]:
    """The document."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(f"{PREFIX}{endpoint.path}", {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "replicator admin API", "version": "1", "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **schemas.found},
            "responses": {
                status: {
                    "description": about,
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, about in _ERRORS.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def openapi_text() -> str:
    """The document as it is stored."""
    return json.dumps(openapi_document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _operation(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    body = [each for each in endpoint.fields if each.place == "body"]
    command = {} if endpoint.command is None else {"x-command": endpoint.command}
    security: list[dict[str, list[str]]] = [{"token": []}]
    if not endpoint.writes and not endpoint.token:
        security.append({})
    document = {
        "operationId": endpoint.name,
        "summary": endpoint.about,
        "tags": ["changes" if endpoint.writes else "looks"],
        "security": security,
        "parameters": [_parameter(each) for each in endpoint.fields if each.place != "body"],
        "responses": {
            "200": {
                "description": "Done" if endpoint.writes else "What is known",
                "content": {"application/json": {"schema": schemas.of(endpoint.answer)}},
            },
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS},
        },
        **command,
    }
    if endpoint.writes:
        document["requestBody"] = {"required": False, "content": {"application/json": {"schema": _body(body)}}}
    return document


def _parameter(given: Field) -> dict[str, Any]:
    schema = {name: value for name, value in given.schema.items() if name != "description"}
    option = {"x-option": given.option} if given.option else {}
    is_required = {"required": True} if given.required else {}
    return {
        "name": given.name,
        "in": given.place,
        "description": given.about,
        "schema": schema,
        **is_required,
        **option,
    }


def _body(fields: list[Field]) -> dict[str, Any]:
    properties = {each.name: {**each.schema, **({"x-option": each.option} if each.option else {})} for each in fields}
    required = [each.name for each in fields if each.required]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": required} if required else {}),
    }
