"""Credentials that are rotated beside the running program, on a server that refuses the old ones."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiobotocore.session import AioSession
from aiohttp import ClientSession, web
from botocore.exceptions import ClientError, NoCredentialsError

from replicator.adapters.aws import credentials as adapter
from replicator.adapters.aws.clients import Place, open_place
from replicator.adapters.aws.credentials import AGAIN_SECONDS, RenewableCredentials, Source
from replicator.adapters.aws.errors import CREDENTIAL_CODES, translate
from replicator.adapters.clients import open_places
from replicator.domain.errors import AccessRefused, ConfigurationInvalid, Unreachable
from replicator.observability.status_board import Board
from replicator.settings import Region, Settings
from tests.contract.worlds import PATIENT

pytestmark = pytest.mark.servers

_JSON = "application/x-amz-json-1.0"
_KEY = re.compile(r"Credential=([^/]+)/")


@dataclass
class Gateway:
    """Stands before a DynamoDB: knows which access keys are over, and gives out keys of roles."""

    upstream: str
    refused: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Gateway]:
        async with ClientSession(auto_decompress=False) as client:

            async def handle(request: web.Request) -> web.Response:
                return await self._answer(request, client)

            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", handle)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request, client: ClientSession) -> web.Response:
        body = await request.read()
        found = _KEY.search(request.headers.get("Authorization", ""))
        key = found[1] if found else ""
        target = request.headers.get("X-Amz-Target", "")
        if key:
            self.seen.append(key)
        if key in self.refused:
            return self._refusal(target)
        if not target:
            return self._sts({name: values[0] for name, values in parse_qs(body.decode()).items()})
        headers = {"X-Amz-Target": target, "Content-Type": _JSON}
        headers["Authorization"] = request.headers["Authorization"].replace(f"Credential={key}/", "Credential=test/")
        async with client.post(self.upstream, data=body, headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=_JSON)

    def _refusal(self, target: str) -> web.Response:
        message = "The security token included in the request is expired"
        if target:
            fault = {"__type": "com.amazon.coral.service#ExpiredTokenException", "message": message}
            return web.json_response(fault, status=400, content_type=_JSON)
        error = f"<Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>{message}</Message></Error>"
        return web.Response(status=403, text=f"<ErrorResponse>{error}</ErrorResponse>", content_type="text/xml")

    def _sts(self, parameters: dict[str, str]) -> web.Response:
        action = parameters["Action"]
        self.tokens.append(parameters.get("WebIdentityToken", ""))
        keys = (
            f"<Credentials><AccessKeyId>ASIAROLE{len(self.tokens)}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
        )
        result = "<Account>000000000000</Account>" if action == "GetCallerIdentity" else keys
        text = f"<{action}Response><{action}Result>{result}</{action}Result></{action}Response>"
        return web.Response(text=text, content_type="text/xml")


@dataclass
class Files:
    """The shared AWS configuration."""

    directory: Path

    def keys(self, key: str) -> None:
        path = self.directory / "credentials"
        path.write_text(f"[prod]\naws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = t\n")

    def config(self, text: str) -> None:
        (self.directory / "config").write_text(f"[profile prod]\nregion = us-east-1\n{text}\n")


@pytest.fixture
async def gateway(dynamodb_url: str) -> AsyncIterator[Gateway]:
    async with Gateway(dynamodb_url).serve() as served:
        yield served


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setattr(adapter, "AGAIN_SECONDS", 0.05)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    files = Files(tmp_path)
    files.config("")
    return files


@asynccontextmanager
async def opened(gateway: Gateway, **settings: Any) -> AsyncIterator[Place]:
    region = Region(region="us-east-1", endpoint_url=gateway.url, **settings)  # type: ignore[arg-type]  # made a URL
    async with open_place("us", region, PATIENT, connections=4) as place:
        yield place


async def works_again(call: Callable[[], Any]) -> None:
    """A call is refused once, as everything is, and answered soon after; nothing else is done meanwhile."""
    with pytest.raises(ClientError, match="ExpiredToken"):
        await call()
    await asyncio.sleep(0.1)
    await call()


async def each_client(place: Place) -> list[Callable[[], Any]]:
    async def identity() -> None:
        async with place.sts() as sts:
            await sts.get_caller_identity()

    return [place.dynamodb.list_tables, place.streams.list_streams, identity]


@pytest.mark.parametrize("client", [0, 1, 2], ids=["dynamodb", "streams", "sts"])
async def test_a_profile_whose_keys_were_rotated_is_read_again(gateway: Gateway, files: Files, client: int) -> None:
    files.keys("ASIAOLD")
    async with opened(gateway, profile="prod") as place:
        call = (await each_client(place))[client]
        await call()
        files.keys("ASIANEW")
        await call()
        assert set(gateway.seen) == {"ASIAOLD"}
        await asyncio.sleep(0.1)
        gateway.refused.add("ASIAOLD")
        await works_again(call)
        assert gateway.seen[-1] == "ASIANEW"
        assert place.credentials.stuck() is None


async def test_regions_that_share_a_session_share_neither_credentials_nor_refusals(
    dynamodb_url: str, gateway: Gateway, files: Files
) -> None:
    files.keys("ASIAOLD")
    async with Gateway(dynamodb_url).serve() as other, AsyncExitStack() as stack:
        role = "arn:aws:iam::000000000000:role/r"
        sessions: dict[str | None, AioSession] = {}
        us, eu = [
            await stack.enter_async_context(open_place(name, region, PATIENT, connections=4, sessions=sessions))
            for name, region in {
                "us": Region(region="us-east-1", endpoint_url=gateway.url, profile="prod", role_arn=role),  # type: ignore[arg-type]
                "eu": Region(region="eu-west-1", endpoint_url=other.url, profile="prod"),  # type: ignore[arg-type]
            }.items()
        ]
        assert list(sessions) == ["prod"]
        for call in await each_client(us):  # one of them is made when the other region is open already
            await call()
        assert gateway.seen == ["ASIAOLD", "ASIAROLE1", "ASIAROLE1", "ASIAROLE1"]
        for call in await each_client(eu):
            await call()
        assert set(other.seen) == {"ASIAOLD"}
        gateway.refused.add("ASIAROLE1")
        with pytest.raises(ClientError, match="ExpiredToken"):
            await us.dynamodb.list_tables()
        assert us.credentials._refused_at is not None
        assert eu.credentials._refused_at is None


async def test_keys_that_are_rotated_later_than_they_end_are_found_then(gateway: Gateway, files: Files) -> None:
    files.keys("ASIAOLD")
    async with opened(gateway, profile="prod") as place:
        await place.dynamodb.list_tables()
        gateway.refused.add("ASIAOLD")
        for _ in range(5):
            with pytest.raises(ClientError, match="ExpiredToken"):
                await place.dynamodb.list_tables()
            await asyncio.sleep(0.1)
        files.directory.joinpath("credentials").write_text("[prod\nhalf a fi")
        for _ in range(3):
            with pytest.raises(ClientError, match="ExpiredToken"):
                await place.dynamodb.list_tables()
            await asyncio.sleep(0.1)
        files.keys("ASIANEW")
        with suppress(ClientError):  # unless another reading was due already
            await place.dynamodb.list_tables()
        await asyncio.sleep(0.1)
        await place.dynamodb.list_tables()


async def test_a_role_is_assumed_again_with_the_keys_that_its_base_has_then(gateway: Gateway, files: Files) -> None:
    files.keys("ASIAOLD")
    async with opened(gateway, profile="prod", role_arn="arn:aws:iam::000000000000:role/r") as place:
        await place.dynamodb.list_tables()
        assert gateway.seen == ["ASIAOLD", "ASIAROLE1"]
        files.keys("ASIANEW")
        await asyncio.sleep(0.1)
        gateway.refused |= {"ASIAOLD", "ASIAROLE1"}
        await works_again(place.dynamodb.list_tables)
        assert gateway.seen[-2:] == ["ASIANEW", "ASIAROLE2"]


async def test_a_role_that_cannot_be_assumed_is_tried_again(gateway: Gateway, files: Files) -> None:
    files.keys("ASIAOLD")
    gateway.refused.add("ASIAOLD")
    async with opened(gateway, profile="prod", role_arn="arn:aws:iam::000000000000:role/r") as place:
        await asyncio.sleep(0.1)
        with pytest.raises(ClientError, match="ExpiredToken"):
            await place.dynamodb.list_tables()
        files.keys("ASIANEW")
        await asyncio.sleep(0.1)
        await place.dynamodb.list_tables()


async def test_a_web_identity_is_exchanged_again_for_the_token_that_is_there_then(
    gateway: Gateway, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", gateway.url)
    token = files.directory / "token"
    token.write_text("first")
    files.config(f"role_arn = arn:aws:iam::000000000000:role/r\nweb_identity_token_file = {token}")
    async with opened(gateway, profile="prod") as place:
        await place.dynamodb.list_tables()
        token.write_text("second")
        await asyncio.sleep(0.1)
        gateway.refused.add("ASIAROLE1")
        await works_again(place.dynamodb.list_tables)
        assert gateway.tokens == ["first", "second"]


async def test_a_process_is_asked_again(gateway: Gateway, files: Files) -> None:
    told = files.directory / "told.json"

    def tell(key: str) -> None:
        told.write_text(json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": "t"}))

    tell("ASIAOLD")
    files.config(f"credential_process = {sys.executable} -c \"print(open('{told}').read())\"")
    async with opened(gateway, profile="prod") as place:
        await place.dynamodb.list_tables()
        tell("ASIANEW")
        await asyncio.sleep(0.1)
        gateway.refused.add("ASIAOLD")
        await works_again(place.dynamodb.list_tables)


@pytest.mark.parametrize(
    ("process", "said"),
    [("/no/such/program", "No such file or directory"), (f"{sys.executable} -c \"print('[]')\"", "AttributeError")],
)
async def test_a_process_that_tells_no_credentials_is_said(files: Files, process: str, said: str) -> None:
    files.config(f"credential_process = {process}")
    eu = {"region": "eu-west-1", "endpoint_url": "http://127.0.0.1:1", "profile": "prod"}
    rule = {"name": "orders", "table": "orders", "source": "eu", "replicas": [{"region": "eu", "table": "copy"}]}
    settings = Settings.model_validate(
        {"group": "test", "regions": {"eu": eu}, "coordination": {"region": "eu"}, "rules": [rule]}
    )
    with pytest.raises(ConfigurationInvalid, match=said) as caught:
        async with open_places(settings, lean=lambda *_: None):
            pass
    assert caught.value.message.startswith("regions.eu cannot be used: ")


async def test_credentials_of_the_environment_are_named_as_what_a_restart_changes(
    gateway: Gateway, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAOLD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    async with opened(gateway) as place:
        board = Board("test", [], Clock())
        board.fatal_signs.append(place.credentials.stuck)
        await place.dynamodb.list_tables()
        gateway.refused.add("ASIAOLD")
        for _ in range(4):
            assert board.health() is None
            with pytest.raises(ClientError):
                await place.dynamodb.list_tables()
            await asyncio.sleep(0.06)
        monkeypatch.setattr(adapter, "_STUCK_SECONDS", 0.1)
        assert "region us has refused the credentials for" in (board.health() or "")
        assert "ExpiredTokenException" in (board.health() or "")
        assert "from the environment, so only a restart" in (board.health() or "")
        gateway.refused.clear()
        await place.dynamodb.list_tables()
        assert board.health() is None


class Clock:
    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0


# -- how often they are read ---------------------------------------------------------------------------------------


class Keys:
    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.method = "shared-credentials-file"

    async def get_frozen_credentials(self) -> str:
        if self.error is not None:
            raise self.error
        return self.name


class Reading:
    """Counts how often credentials are read, on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0
        self.count = 0
        self.next: Source | Exception = Source(Keys("first"))
        self.credentials = RenewableCredentials("us", self.read, lambda: self.at)

    async def read(self) -> Source:
        self.count += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    async def taken(self) -> Any:
        return await self.credentials.get_frozen_credentials()


async def test_however_many_requests_are_refused_credentials_are_read_seldom() -> None:
    reading = Reading()
    for _ in range(1000):
        await reading.taken()
        reading.credentials.answered({"Error": {"Code": "ExpiredTokenException"}})
        reading.at += AGAIN_SECONDS / 100
    assert reading.count == 10


async def test_credentials_are_at_hand_for_a_moment_and_not_behind_a_refusal() -> None:
    reading = Reading()
    assert reading.credentials.at_hand() is None, "nothing was read yet"
    await reading.taken()
    assert reading.credentials.at_hand() == "first"
    reading.at += 1.5
    assert reading.credentials.at_hand() is None, "they may be about to expire"
    await reading.taken()
    reading.next, reading.at = Source(Keys("second")), 100
    await reading.taken()
    reading.credentials.refused("ExpiredToken")
    assert reading.credentials.at_hand() is None, "they were refused"
    assert await reading.taken() == reading.credentials.at_hand() == "second"


async def test_requests_at_once_read_once() -> None:
    reading = Reading()
    await asyncio.gather(*(reading.taken() for _ in range(50)))
    assert reading.count == 1


async def test_other_answers_change_nothing() -> None:
    reading = Reading()
    for code in ("AccessDeniedException", "ThrottlingException", None):
        reading.at += 100
        await reading.taken()
        reading.credentials.answered({"Error": {"Code": code}} if code else {})
    assert reading.count == 1


@pytest.mark.parametrize("error", [ValueError("half a file"), AttributeError("no document of credentials")])
async def test_a_reading_that_fails_leaves_what_there_was(error: Exception) -> None:
    reading = Reading()
    await reading.taken()
    reading.next, reading.at = error, 100
    reading.credentials.refused("ExpiredToken")
    assert await reading.taken() == "first"
    reading.next, reading.at = Source(Keys("second")), 200
    reading.credentials.refused("ExpiredToken")
    assert await reading.taken() == "second"


async def test_no_credentials_are_looked_for_again() -> None:
    reading = Reading()
    reading.next = Source(None)
    with pytest.raises(NoCredentialsError):
        await reading.taken()
    reading.next, reading.at = Source(Keys("first")), 100
    with pytest.raises(NoCredentialsError):
        await reading.taken()
    assert await reading.taken() == "first"


@pytest.mark.parametrize(
    "error", [RuntimeError("refreshed, but still expired"), AttributeError("'list' object has no attribute 'get'")]
)
@pytest.mark.parametrize("when", ["read", "refreshed"])
async def test_credentials_that_cannot_be_had_are_no_fault_of_the_program(error: Exception, when: str) -> None:
    reading = Reading()
    reading.next = error if when == "read" else Source(Keys("first", error))
    with pytest.raises(Exception, match=type(error).__name__) as caught:
        await reading.taken()
    ours = translate(caught.value, "PutItem on orders in eu")
    assert isinstance(ours, Unreachable)
    assert "has no credentials now" in ours.message


@pytest.mark.parametrize("code", sorted(CREDENTIAL_CODES))
def test_refused_credentials_say_how_they_are_renewed(code: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "no"}}, "PutItem")
    ours = translate(error, "PutItem on orders in eu")
    assert isinstance(ours, AccessRefused)
    assert "reloaded automatically" in ours.advice
