"""The admin API over HTTP: which request may go on, how much at once, what is noted, and how it is answered.

Invariant: nothing changes without a token and a row of the audit; no answer holds values of items that was not asked
for them with a token; and requests cost a bounded amount, whatever sends them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from replicator.admin.api.endpoints import PREFIX, Asked, Endpoint
from replicator.admin.api.guard import Caller, Guesses, Tokens, is_own_host, is_own_page, token_in
from replicator.admin.api.openapi import ENDPOINTS, openapi_text
from replicator.admin.api.problems import Answer, Problem, answer_of
from replicator.domain.errors import ReplicatorError
from replicator.observability.log_throttle import Reminders
from replicator.operations.audit import audited
from replicator.operations.documents import document

if TYPE_CHECKING:
    from replicator.admin.api.clients import Groups
    from replicator.ports.clock import Clock
    from replicator.settings import Settings

_AT_ONCE, _AT_ONCE_WITHOUT_TOKEN, _AT_ONCE_OF_A_KIND = 16, 8, 2
_BODY_SECONDS, _FRESH_SECONDS = 10.0, 1.0
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _CONTENT_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer of the API and the console says."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""What answers a request."""


class Api:
    """The API of one worker. `names`: those by which it is reached, beside addresses and localhost."""

    def __init__(self, settings: Callable[[], Settings], groups: Groups, clock: Clock, names: set[str]) -> None:
        """`settings`: as they are in force now."""
        self._settings, self._names, self._guesses = settings, {name.lower() for name in names}, Guesses()
        self._tokens_of, self._tokens = settings(), Tokens(settings().admin.api, settings().secrets)
        self._groups, self._clock = groups, clock
        self._under_way = 0
        self._turns = {each.name: asyncio.Semaphore(_AT_ONCE_OF_A_KIND) for each in ENDPOINTS}
        self._shared = {each.name: _Shared(clock) for each in ENDPOINTS if each.once}
        self._log = structlog.get_logger("replicator")
        self._reminders = Reminders(clock)

    def routes(self) -> list[web.RouteDef]:
        """Every operation, the document that describes them, and an error for what is neither."""
        served = [web.route(each.method, f"{PREFIX}{each.path}", self._served(each)) for each in ENDPOINTS]
        return [
            web.get(f"{PREFIX}/openapi.json", self.guarded(_described)),
            *served,
            web.route("*", "/api/{rest:.*}", self.guarded(_nothing)),
        ]

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind the checks of Host and Origin, whose errors are problem documents."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self._check_page(request)
                answer = await handler(request)
            except Problem as problem:
                answer = _refused(problem.answer)
            except ReplicatorError as error:
                answer = _refused(answer_of(error))
            except web.HTTPRequestEntityTooLarge:
                answer = _refused(Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large."))
            except TimeoutError:
                sentence = "The request timed out. The change may have been made: check before trying again."
                answer = _refused(Answer(HTTPStatus.GATEWAY_TIMEOUT, sentence))
            except Exception as error:  # noqa: BLE001 - the boundary: a fault is answered, logged, and ends nothing
                self._log.error("admin_request_failed", path=request.path, fault=_place_of(error))
                answer = _refused(Answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"A fault: {_place_of(error)}."))
            answer.headers.update(HEADERS)
            return answer

        return guarded

    def _check_page(self, request: web.Request) -> None:
        host = request.headers.get("Host", "")
        if not is_own_host(host, self._names.union(self._settings().admin.api.hosts)):
            sentence = "The Host is no name of this server: add it to admin.api.hosts, or use an address."
            raise Problem(HTTPStatus.FORBIDDEN, sentence)
        if not is_own_page(host, request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")):
            raise Problem(HTTPStatus.FORBIDDEN, "A page of another origin may ask nothing here.")

    # -- one request ---------------------------------------------------------------------------------------------------

    def _served(self, endpoint: Endpoint) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            caller = self._caller(request)
            if self._under_way >= (_AT_ONCE if caller.name else _AT_ONCE_WITHOUT_TOKEN):
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are under way.", Retry_After="1")
            self._under_way += 1
            try:
                given = endpoint.parsed(request.match_info, _once_each(request), await _body(endpoint, request))
                self._allow(caller, endpoint, given)
                async with asyncio.timeout(endpoint.seconds), self._turns[endpoint.name]:
                    return _json(await self._answer(endpoint, caller, given))
            finally:
                self._under_way -= 1

        return self.guarded(serve)

    async def _answer(self, endpoint: Endpoint, caller: Caller, given: dict[str, Any]) -> str:
        group = await self._groups.group(writes=endpoint.writes)
        asked = Asked(group, caller, given, endpoint.typed(given))

        async def text() -> str:
            return _text(await endpoint.deed(asked))

        if endpoint.once:
            return await self._shared[endpoint.name].answer(text)
        if not endpoint.writes and not asked.values:
            return await text()
        what = endpoint.name if endpoint.writes else f"{endpoint.name} with values"
        said = {"who": caller.name or "", "what": what, "command": asked.text, "origin": caller.address}
        self._log.info("admin_deed", **said)
        async with audited(group, **said):
            return await text()

    def _caller(self, request: web.Request) -> Caller:
        address, now = request.remote or "", self._clock.monotonic()
        token = token_in(request.headers.get("Authorization"))
        if token is None:
            return Caller(None, "none", address)
        wait = self._guesses.wait(address, now)
        if wait > 0:
            sentence = "Too many wrong tokens from this address: wait before the next attempt."
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, sentence, Retry_After=str(int(wait) + 1))
        if (settings := self._settings()) is not self._tokens_of:
            self._tokens_of, self._tokens = settings, Tokens(settings.admin.api, settings.secrets)
        found = self._tokens.holder(token, address)
        if found is None:
            self._guesses.wrong(address, now)
            if self._reminders.due(("token", address), "admin_token_refused"):
                self._log.warning(
                    "admin_token_refused",
                    origin=address,
                    advice="The token may be being guessed: check which client connects from there.",
                )
            raise _unknown("This worker does not know the token.")
        return found

    def _allow(self, caller: Caller, endpoint: Endpoint, given: dict[str, Any]) -> None:
        if caller.name is None:
            if endpoint.writes:
                raise _unknown("Changes need a token: Authorization: Bearer TOKEN.")
            if endpoint.token or given.get("values") == "show":
                raise _unknown("Values of items are shown to tokens only: Authorization: Bearer TOKEN.")
            if not self._settings().admin.api.read_without_token:
                raise _unknown("Reading needs a token here: Authorization: Bearer TOKEN.")
        elif endpoint.writes and not caller.may_write:
            raise Problem(HTTPStatus.FORBIDDEN, f"Token {caller.name} may read only.")


class _Shared:
    """One answer for requests at about the same time."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._turn = clock, asyncio.Lock()
        self._known: tuple[float, str] | None = None

    async def answer(self, ask: Callable[[], Awaitable[str]]) -> str:
        asked_at = self._clock.monotonic()
        async with self._turn:
            if self._known is None or self._known[0] < asked_at - _FRESH_SECONDS:
                began = self._clock.monotonic()
                self._known = began, await ask()
            return self._known[1]


async def _described(_: web.Request) -> web.StreamResponse:
    return _json(openapi_text())


async def _nothing(_: web.Request) -> web.StreamResponse:
    raise Problem(HTTPStatus.NOT_FOUND, f"There is no such operation: {PREFIX}/openapi.json describes those that are.")


async def _body(endpoint: Endpoint, request: web.Request) -> bytes:
    """The body of what changes something; its type keeps forms of other pages out."""
    if not endpoint.writes:
        return b""
    if request.content_type != "application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json.")
    async with asyncio.timeout(_BODY_SECONDS):
        return await request.read()


def _once_each(request: web.Request) -> dict[str, str]:
    if len(request.query) != len(set(request.query)):
        raise Problem(HTTPStatus.BAD_REQUEST, "A member of the query is there twice.")
    return dict(request.query)


def _unknown(sentence: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, sentence, WWW_Authenticate="Bearer")


def _text(value: Any) -> str:
    return json.dumps(document(value), ensure_ascii=False, separators=(",", ":"))


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json", charset="utf-8")


def _refused(answer: Answer) -> web.Response:
    text = json.dumps(answer.document, ensure_ascii=False)
    return web.Response(
        text=text, status=answer.status, content_type="application/problem+json", headers=dict(answer.headers)
    )


def _place_of(error: BaseException) -> str:
    """The kind of a fault and where it is; its message may hold values."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "" if at is None else f" in {at.tb_frame.f_code.co_qualname}, line {at.tb_lineno}"
    return f"{type(error).__name__}{where}"
