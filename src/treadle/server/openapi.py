"""The OpenAPI document of the operations: https://spec.openapis.org/oas/v3.2.0.html."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from treadle.domain.events import Event
from treadle.server.bodies import AgentInfo
from treadle.server.operation import JSON, NoFields, Operation
from treadle.server.stream import StreamEnd

VERSION = "3.2.0"
REF = "#/components/schemas/{name}"
_DESCRIPTION = (
    "Conversations between people, language models and tools. Every request may have the headers "
    "X-Treadle-Owner, which finds what belongs to this owner only, and X-Treadle-By, the person "
    "for whom a program makes it; both in UTF-8 with percent-encoding."
)


def openapi_document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """Returns the document as JSON values."""
    all_operations = list(operations)
    kinds = _kinds(all_operations)
    schemas, components = msgspec.json.schema_components(
        kinds, schema_hook=_schema_of, ref_template=REF
    )
    by_kind = {_key(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in all_operations:
        described = _operation(operation, by_kind)
        paths.setdefault(operation.full_path, {})[operation.method.lower()] = described
    return {
        "openapi": VERSION,
        "info": {
            "title": "treadle",
            "version": version,
            "description": _DESCRIPTION,
        },
        "security": [{"key": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "treadle_session"},
            },
        },
    }


def _schema_of(kind: object) -> dict[str, Any]:
    """Returns the schema of a type that msgspec does not describe: JSON of any form."""
    return {"description": "Any JSON."}


def _kinds(operations: Iterable[Operation]) -> list[Any]:
    kinds: dict[object, Any] = {}
    for kind in (StreamEnd, AgentInfo, Event):
        kinds[_key(kind)] = kind
    for operation in operations:
        for kind in (
            operation.errors.kind,
            operation.query,
            operation.body,
            *operation.answers.values(),
        ):
            if kind is not None and kind is not bytes:
                kinds.setdefault(_key(kind), kind)
    return list(kinds.values())


def _key(kind: object) -> object:
    return kind if isinstance(kind, type) else repr(kind)


def _operation(operation: Operation, by_kind: Mapping[object, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {
            **{str(status): _answer(operation, status, by_kind) for status in operation.answers},
            "default": {
                "description": "An error",
                "content": {
                    operation.errors.media_type: {"schema": by_kind[_key(operation.errors.kind)]}
                },
            },
        },
    }
    if operation.scope:
        described["x-scope"] = operation.scope
    if operation.is_stream and operation.method == "POST":
        described["parameters"].append(_header("Idempotency-Key"))
    if operation.is_event_source:
        described["parameters"].append(_header("Last-Event-ID"))
    if operation.body is bytes:
        content: dict[str, Any] = {"application/octet-stream": {"schema": {}}}
        described["requestBody"] = {"required": True, "content": content}
    elif operation.body is not None:
        described["requestBody"] = {
            "required": _has_required(operation.body),
            "content": {JSON.decode(): {"schema": by_kind[_key(operation.body)]}},
        }
    return described


def _has_required(kind: Any) -> bool:
    return any(field.required for field in msgspec.structs.fields(kind))


def _header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}}


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }
        for name in names
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is NoFields:
        return []
    (_,), components = msgspec.json.schema_components([operation.query])
    schema = cast("dict[str, Any]", components[operation.query.__name__])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": kind,
        }
        for name, kind in schema["properties"].items()
    ]


def _answer(operation: Operation, status: int, by_kind: Mapping[object, Any]) -> dict[str, Any]:
    kind = operation.answers[status]
    answer: dict[str, Any] = {"description": _DESCRIPTIONS.get(status, "Success")}
    if kind is None:
        return answer
    if kind is bytes:
        answer["content"] = {"*/*": {"schema": {}}}
        return answer
    schema = by_kind[_key(kind)]
    content: dict[str, Any] = {}
    if operation.is_page:
        content[JSON.decode()] = {"schema": _page_of(schema)}
    elif not operation.is_event_source:
        content[JSON.decode()] = {"schema": schema}
    if operation.is_stream and status == 200:
        content["text/event-stream"] = {"itemSchema": _FRAME}
    answer["content"] = content
    return answer


def _page_of(schema: object) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["data", "next"],
        "properties": {
            "data": {"type": "array", "items": schema},
            "next": {"type": ["string", "null"]},
        },
    }


_FRAME: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The position after the event."},
        "event": {"type": "string", "description": "The type of the event."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "The event; see the schemas whose `type` is that of the event.",
        },
    },
}

_DESCRIPTIONS = {
    200: "Success",
    201: "Created",
    202: "Accepted",
    204: "Done; there is no body",
}
