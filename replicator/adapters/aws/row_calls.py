"""A client's calls about single rows, made without it where that is the same.

Parameters, answers and errors are the client's own, so what uses a client may use this in its place. Invariant: a write
is never sent twice, since a caller that repeats one must look first at what became of it.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.adapters.aws.transport.lean import ServiceError
from replicator.adapters.aws.wire import CONDITION_FAILED, TRANSACTION_CANCELLED, Wire, decoded, verified

if TYPE_CHECKING:
    from replicator.adapters.aws.transport.connection import Answer

_ENCODE = msgspec.json.Encoder().encode
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_EXPLAINED = (CONDITION_FAILED, TRANSACTION_CANCELLED)
_EXPLANATIONS = ("CancellationReasons", "Item")
"""What a client's error holds of the answer, beside its code and message."""

_BINARY = b'"B'
"""What an answer holds that has a value of bytes in it, among others."""


class RowCalls:
    """`client` with some of its calls replaced; everything else is the client's."""

    def __init__(self, client: Any, wire: Wire) -> None:
        self._client = client
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def query(self, **parameters: Any) -> Any:
        """Query."""
        return await self._call("Query", self._client.query, parameters, reads=True)

    async def get_item(self, **parameters: Any) -> Any:
        """GetItem."""
        return await self._call("GetItem", self._client.get_item, parameters, reads=True)

    async def update_item(self, **parameters: Any) -> Any:
        """UpdateItem."""
        return await self._call("UpdateItem", self._client.update_item, parameters)

    async def delete_item(self, **parameters: Any) -> Any:
        """DeleteItem."""
        return await self._call("DeleteItem", self._client.delete_item, parameters)

    async def transact_write_items(self, **parameters: Any) -> Any:
        """TransactWriteItems."""
        return await self._call("TransactWriteItems", self._client.transact_write_items, parameters)

    async def _call(self, operation: str, stock: Any, parameters: Mapping[str, Any], *, reads: bool = False) -> Any:
        transport, credentials = await self._wire.transport()
        if transport is None:
            return await stock(**parameters)
        what = f"{operation} on {transport.url}"
        try:
            answer = await transport.send(operation, _ENCODE(parameters), None, credentials, repeatable=reads)
        except ServiceError as error:
            if error.response["Error"]["Code"] in _EXPLAINED:
                document = _document(error.answer, what)
                response: Any = error.response
                response.update({name: document[name] for name in _EXPLANATIONS if name in document})
            raise
        verified(answer, what)
        dated = {} if answer.date is None else {"date": answer.date}
        status = {"HTTPStatusCode": answer.status, "HTTPHeaders": dated, "RetryAttempts": 0}
        return _document(answer, what) | {"ResponseMetadata": status}


def _document(answer: Answer, what: str) -> dict[str, Any]:
    document = decoded(_OBJECT, answer.body, what)
    if _BINARY in answer.body:
        reasons = [each.get("Item") for each in document.get("CancellationReasons") or ()]
        rows = [*(document.get("Items") or ()), document.get("Item"), document.get("Attributes"), *reasons]
        for row in filter(None, rows):
            _decode(row.values())
    return document


def _decode(values: Iterable[dict[str, Any]]) -> None:
    """Put bytes in the place of what spells them, in nested values, too."""
    for typed in values:
        if "B" in typed:
            typed["B"] = b64decode(typed["B"])
        elif "BS" in typed:
            typed["BS"] = [b64decode(value) for value in typed["BS"]]
        elif "M" in typed:
            _decode(typed["M"].values())
        elif "L" in typed:
            _decode(typed["L"])
