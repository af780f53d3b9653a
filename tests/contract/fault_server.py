"""A server that answers what no good server would, and what may be answered."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

JSON = "application/x-amz-json-1.0"


def answer(
    status: int = 200, body: bytes = b"{}", *, headers: dict[str, str] | None = None, length: int | None = None
) -> bytes:
    """An answer as bytes; `length` when it shall not be true."""
    lines = {"Content-Type": JSON, "Content-Length": str(len(body) if length is None else length), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Some reason\r\n{head}\r\n".encode() + body


def error(code: str, message: str = "as it is", status: int = 400) -> bytes:
    return answer(status, f'{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"{message}"}}'.encode())


HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: %b\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    % JSON.encode()
)

ANSWERS: dict[str, list[bytes | str]] = {
    "well": [answer()],
    "right_checksum": [answer(body=b'{"a":1}', headers={"x-amz-crc32": str(zlib.crc32(b'{"a":1}'))})],
    "wrong_checksum": [answer(headers={"x-amz-crc32": "1"})],
    "chunked": [CHUNKED],
    "closed_after_each": [answer(headers={"Connection": "close"}), "close"],
    "until_the_end": [b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\n{}" % JSON.encode(), "close"],
    "until_the_end_in_parts": [b"HTTP/1.1 200 OK\r\n\r\n{", "pause", b"}", "close"],
    "http_1_0": [answer().replace(b"HTTP/1.1", b"HTTP/1.0"), "close"],
    "continue_first": [b"HTTP/1.1 100 Continue\r\n\r\n", answer()],
    "hints_first": [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "pause", answer()],
    "slow": [answer()[:30], "pause", answer()[30:-1], "pause", answer()[-1:]],
    "two_at_once": [answer() + answer(body=b'{"another":"ones"}')],
    "no_content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "compressed": [answer(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})],
    "other_lengths": [answer(headers={"content-length": "1"})],
    "length_of_chunks": [CHUNKED.replace(b"Content-Type", b"Content-Length: 2\r\nContent-Type")],
    "chunks_truncated": [CHUNKED[:-5], "close"],
    "chunks_half": [CHUNKED[:-5], "wait"],
    "chunks_wrong": [CHUNKED.replace(b"\r\n1\r\n{", b"\r\nx\r\n{"), "close"],
    "never": ["wait"],
    "half": [answer(body=b'{"Item"', length=100), "wait"],
    "truncated": [answer(body=b'{"Item"', length=100), "close"],
    "closed_at_once": ["close"],
    "closed_in_the_head": [b"HTTP/1.1 200 OK\r\nContent-", "close"],
    "no_http": [b"what do you want?\r\n\r\n", "close"],
    "empty": [answer(body=b"")],
    "null": [answer(body=b"null")],
    "html_200": [answer(200, HTML, headers={"Content-Type": "text/html"})],
    "html_403": [answer(403, HTML, headers={"Content-Type": "text/html"})],
    "html_502": [answer(502, HTML, headers={"Content-Type": "text/html"})],
    "empty_503": [answer(503, b"")],
    "text_500": [answer(500, b"out of order")],
    "list_400": [answer(400, b"[]")],
    "number_for_a_code": [answer(400, b'{"__type":7}')],
    "internal": [error("InternalServerError", status=500)],
    "unavailable": [error("ServiceUnavailable", status=503)],
    "throttled": [error("ProvisionedThroughputExceededException")],
    "throttling": [error("ThrottlingException")],
    "code_with_colon": [answer(400, b'{"__type":"ThrottlingException:http://internal/","message":"slow"}')],
    "code_alone": [answer(400, b'{"__type":"RequestLimitExceeded","Message":"slow"}')],
    "no_code": [answer(400, b'{"message":"what?"}')],
    "denied": [error("AccessDeniedException")],
    "unrecognized": [error("UnrecognizedClientException")],
    "request_too_large": [answer(413, b"")],
    "doctype_500": [answer(500, b"<!DOCTYPE html><p>sorry", headers={"Content-Type": "text/html"})],
    "wrong_checksum_of_a_refusal": [
        answer(400, b'{"__type":"x#ConditionalCheckFailedException"}', headers={"x-amz-crc32": "1"})
    ],
    "expired_token": [error("ExpiredTokenException")],
    "missing_table": [error("ResourceNotFoundException")],
    "poison": [error("ValidationException", "One or more parameter values were invalid")],
    "condition": [error("ConditionalCheckFailedException")],
    "cancelled": [answer(400, b'{"__type":"x#TransactionCanceledException","CancellationReasons":[{"Code":"None"}]}')],
    "skewed": [error("InvalidSignatureException", "Signature expired: now is later")],
}


@dataclass
class Server:
    """A server that does to its connections what a script says, request by request."""

    script: list[bytes | str] = field(default_factory=list)
    turns: Iterator[Sequence[bytes | str]] | None = None
    """What is done for the requests one after the other, in place of the script."""
    answers: Callable[[bytes], bytes] | None = None
    """What is answered to a request, in place of both."""
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                for step in self._steps(request):
                    if step == "close":
                        return
                    if step == "pause":
                        await asyncio.sleep(0.05)
                        continue
                    if step == "wait":
                        await asyncio.sleep(30)
                    else:
                        assert isinstance(step, bytes)
                        writer.write(step)
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _steps(self, request: bytes) -> Sequence[bytes | str]:
        if self.answers is not None:
            return [self.answers(request)]
        return self.script if self.turns is None else next(self.turns)


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
