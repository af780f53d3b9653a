"""`replicator health`: what the worker on this machine answers to a probe, as an exit code, for scripts and images."""

from __future__ import annotations

import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from replicator.cli.output import print_json
from replicator.domain.errors import EXIT_UNREACHABLE, ConfigurationInvalid
from replicator.settings.loading import configuration_path, load

_SECONDS = 4.0
_MOST_BYTES = 65_536
_OK = 200


def ask_health(config: Path | None, *, ready: bool, as_json: bool) -> int:
    """Print what /healthz or /readyz says; 0 when it is well, 1 when it is not, 69 when nothing answers."""
    places = load(configuration_path(config)).admin.local_urls()
    if not places:
        raise ConfigurationInvalid("admin.port is 0, so nothing but the log knows the port", advice="set a port")
    path = "/readyz" if ready else "/healthz"
    asked = ((local, *_ask(local, path)) for local in places)
    first = next(asked)
    local, status, answer = first if first[1] is not None else next((each for each in asked if each[1]), first)
    code = EXIT_UNREACHABLE if status is None else int(status != _OK)
    if as_json:
        print_json({"url": f"{local}{path}", "status": status, "answer": answer, "exit_code": code})
    else:
        sys.stdout.write(f"{answer}\n")
    return code


def _ask(local: str, path: str) -> tuple[int | None, str]:
    """Status and text of the answer; no status when there is none."""
    place = urlsplit(local)
    assert place.hostname is not None
    connection = HTTPConnection(place.hostname, place.port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_MOST_BYTES).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        return None, f"{local}{path} does not answer ({error}): no worker runs here, or it is stuck."
    finally:
        connection.close()
