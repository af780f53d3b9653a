"""The descriptions that AWS clients are made of: megabytes of JSON and certificates, read once, and quickly.

Each client reads them by itself otherwise. A start is mostly that, and what a thousand small objects cost stays.
"""

from __future__ import annotations

import os
import ssl
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from aiobotocore.httpsession import AIOHTTPSession
from botocore.loaders import JSONFileLoader, Loader

_ENDPOINTS = {"dynamodb", "streams.dynamodb", "s3", "sts", "sso", "oidc", "portal.sso", "signin"}
"""Services whose old description of endpoints is kept, with those that credentials may come from; the rest is 4 MB."""


@cache
def service_descriptions(data_path: str | None) -> Loader:
    """The services' descriptions of all sessions; `data_path` names more places, as AWS_DATA_PATH does."""
    more = [os.path.expanduser(os.path.expandvars(path)) for path in (data_path or "").split(os.pathsep) if path]  # noqa: PTH111 - as the client does
    return _Descriptions(extra_search_paths=more, file_loader=_Files())


class _Files(JSONFileLoader):
    """Files of JSON, read into plain objects. Their order is kept, as in the client's own."""

    def _load_file(self, full_path: str, open_method: Any) -> Any:
        if not Path(full_path).is_file():
            return None
        with open_method(full_path, "rb") as file:
            content = file.read()
        return _endpoints(content) if Path(full_path).name == "endpoints.json" else msgspec.json.decode(content)


def _endpoints(content: bytes) -> dict[str, Any]:
    """The old description of endpoints; what other services have there is passed over and never made an object."""
    return {
        name: [_partition(each) for each in msgspec.json.decode(part, type=list[dict[str, msgspec.Raw]])]
        if name == "partitions"
        else _plain(part)
        for name, part in _parts(content).items()
    }


def _partition(parts: dict[str, msgspec.Raw]) -> dict[str, Any]:
    services = _parts(parts["services"])
    kept = {name: _plain(services[name]) for name in services.keys() & _ENDPOINTS}
    return {name: kept if name == "services" else _plain(part) for name, part in parts.items()}


def _parts(content: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(content, type=dict[str, msgspec.Raw])


def _plain(content: msgspec.Raw) -> Any:
    return msgspec.json.decode(content)


class _Descriptions(Loader):
    """A loader that does not open every service's folder to learn that ours is there."""

    def list_available_services(self, type_name: str) -> list[str]:
        """Every folder that may be a service; one without a description is missed when that is loaded."""
        del type_name
        folders = [Path(path) for path in self.search_paths]
        return sorted({name for folder in folders if folder.is_dir() for name in os.listdir(folder)})  # noqa: PTH208 - names are asked for


class SharedTrust(AIOHTTPSession):
    """The HTTP session of a client, with certificates that were read once for all: 20 ms a client otherwise."""

    def _build_ssl_contexts(self, proxy_url: str | None) -> tuple[ssl.SSLContext, ssl.SSLContext | None]:
        session: Any = self
        build = super()._build_ssl_contexts  # type: ignore[misc]
        if proxy_url or session._cert_file is not None:  # what is built for one of these is added to  # noqa: SLF001
            own: tuple[ssl.SSLContext, ssl.SSLContext | None] = build(proxy_url)
            return own
        if session._verify not in _SHARED:  # noqa: SLF001
            _SHARED[session._verify] = build(None)[0]  # noqa: SLF001
        return _SHARED[session._verify], None  # noqa: SLF001


_SHARED: dict[bool | str, ssl.SSLContext] = {}
"""By what is believed: the client's own certificates, those of a file, or everything."""
