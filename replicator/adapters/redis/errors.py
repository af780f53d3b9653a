"""What a Redis server answered, as one of our errors.

The code of an answer is looked for anywhere in its text: Redis 6.2 wraps the error of a command inside a script in a
sentence of its own, and some versions leave the code out. Invariant: the error's sentence names the kind of trouble.
"""

from __future__ import annotations

import re

from msgspec import Struct
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from replicator.domain.errors import AccessRefused, ReplicatorError, Throttled, Unreachable, WorldMismatch

CLIENT_ERRORS = (RedisError, OSError, TimeoutError)
_LONGEST_REASON = 200
_GOES_ON = "the work continues by itself when the address leads to one that can be written"


class _Kind(Struct, frozen=True):
    """One kind of answer: what the cache is or did, what to do, and whether the address may lead elsewhere by now."""

    error: type[ReplicatorError]
    says: str
    advice: str
    elsewhere: bool = True


_CREDENTIALS = _Kind(AccessRefused, "refused the credentials", "Correct the cache's username and password.")
_PERMISSION = _Kind(
    AccessRefused,
    "denied a command or a key",
    "Grant the cache's user its commands and key patterns (`replicator check` names them).",
    elsewhere=False,
)
_READ_ONLY = _Kind(Unreachable, "is a read-only replica", f"Name its primary; after a failover {_GOES_ON}.")
_CLUSTER = _Kind(
    Unreachable,
    "is a Redis Cluster that is down or moves slots, or a node of one",
    "A cluster is named by redis+cluster://; its slots need a node each. The worker retries.",
)
_NO_CLUSTER = _Kind(
    WorldMismatch,
    "is no Redis Cluster",
    "Name it by redis:// or rediss://, or enable cluster mode.",
)
_FULL = _Kind(
    Throttled,
    "is out of memory",
    "Raise maxmemory or set an eviction policy; until then entries are dropped instead of refreshed.",
)
_MISSING_COMMAND = _Kind(
    WorldMismatch,
    "does not know a command",
    "UNLINK, EVAL and EVALSHA are needed under these names: use Redis 6.2 or later, or Valkey, and do not rename them.",
)
_NO_DATABASE = _Kind(
    WorldMismatch,
    "has no database of this number",
    "Correct the number at the end of its URL, or raise `databases` of the server.",
)
_ANSWERED = _Kind(Unreachable, "answered with an error", "See the server's message; the worker retries.")
_SILENT = _Kind(Unreachable, "got no answer", Unreachable.advice)

_BY_CODE = {
    "DENIED": _Kind(AccessRefused, "is in protected mode", "Set a password for it, or let it listen on loopback only."),
    "NOAUTH": _CREDENTIALS,
    "WRONGPASS": _CREDENTIALS,
    "NOPERM": _PERMISSION,
    "READONLY": _READ_ONLY,
    "OOM": _FULL,
    "MISCONF": _Kind(
        Unreachable,
        "refuses every write because it cannot save its data set",
        "Free its disk or repair its directory, or set stop-writes-on-bgsave-error to no; the worker retries.",
    ),
    "NOREPLICAS": _Kind(
        Unreachable,
        "refuses every write because it has too few replicas",
        "Restore its replicas, or lower min-replicas-to-write; the worker retries.",
    ),
    "LOADING": _Kind(Unreachable, "is loading its data set", f"Nothing to do but wait: {_GOES_ON}."),
    "MASTERDOWN": _Kind(
        Unreachable, "is a replica that lost its primary", f"Name its primary; after a failover {_GOES_ON}."
    ),
    "CLUSTERDOWN": _CLUSTER,
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
    "TRYAGAIN": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "BUSY": _Kind(
        Throttled, "is busy with another client's script", "End that script (SCRIPT KILL); the worker retries."
    ),
}
_BY_WORDS = (
    (
        r"ACL failure in script|can't run this command|can't access at least one|no permissions to",
        _PERMISSION,
    ),
    (r"invalid (username-password pair|password)|authentication required", _CREDENTIALS),
    (
        r"max number of clients reached",
        _Kind(Throttled, "has no connection left", "Raise maxclients, or run fewer clients; the worker retries."),
    ),
    (r"unknown (redis )?command", _MISSING_COMMAND),
    (
        r"certificate.?verify.?failed|unable to get local issuer|hostname mismatch",
        _Kind(
            AccessRefused,
            "shows a certificate that is not trusted",
            "Name its authority by ssl_ca_certs of the URL, and the host as the certificate does.",
        ),
    ),
    (
        r"alert.?(certificate|bad.?certificate|unknown.?ca|handshake.?failure)|certificate.?required",
        _Kind(
            AccessRefused,
            "does not accept the client's certificate, or requires one",
            "Name one that it trusts by ssl_certfile and ssl_keyfile of the URL.",
        ),
    ),
    (r"db index is out of range|invalid db index", _NO_DATABASE),
    (r"cluster support disabled", _NO_CLUSTER),
)
"""What answers without a code say."""

_CODE = re.compile(r"(?<![A-Za-z])[A-Z]{3,}(?![A-Za-z])")
_NO_SCRIPT = "NOSCRIPT"


def is_unknown_script(error: Exception) -> bool:
    """Whether the server does not hold the script that it was asked for by its digest."""
    return _NO_SCRIPT in _codes(error)


def is_wrong_type(error: Exception) -> bool:
    """Whether the key holds something that is no string."""
    return "WRONGTYPE" in _codes(error)


def is_elsewhere(error: Exception) -> bool:
    """Whether the server behind the address may be another one by now, so that connections should begin anew."""
    return _kind(error).elsewhere


def is_permission(error: Exception) -> bool:
    """Whether one command or key is denied, which says nothing about others."""
    return _kind(error) is _PERMISSION


def is_elsewhere_in_cluster(error: Exception) -> bool:
    """Whether a node of a cluster says that it does not hold the slot, now or at all."""
    return _kind(error) is _CLUSTER


def is_full(error: Exception) -> bool:
    """Whether the server has no memory left for what would be stored."""
    return _kind(error) is _FULL


def translated(error: Exception, what: str) -> ReplicatorError:
    """The error as ours; `what` names the cache."""
    kind = _kind(error)
    reason = str(error)[:_LONGEST_REASON].strip().rstrip(". ") or type(error).__name__
    doubt = _doubt_of_tls(what, reason) if kind is _SILENT else ""
    return kind.error(f"The {what} {kind.says}: {reason}{doubt}.", advice=kind.advice)


def _doubt_of_tls(what: str, reason: str) -> str:
    """What may be wrong where one side speaks TLS and the other does not: neither says so by itself."""
    if " at rediss" in what and re.search(r"timeout|wrong.version.number|record.layer", reason, re.IGNORECASE):
        return " (rediss:// needs a port that speaks TLS)"
    if " at redis" in what and " at rediss" not in what and re.search(r"closed|reset", reason, re.IGNORECASE):
        return " (a port that speaks TLS needs rediss://)"
    return ""


def _kind(error: Exception) -> _Kind:
    for code in _codes(error):
        if code in _BY_CODE:
            return _BY_CODE[code]
    text = str(error)
    for words, kind in _BY_WORDS:
        if re.search(words, text, re.IGNORECASE):
            return kind
    if isinstance(error, AuthenticationError):
        return _CREDENTIALS
    if isinstance(error, ResponseError) and not isinstance(error, RedisConnectionError | InvalidResponse):
        return _ANSWERED
    return _SILENT


def _codes(error: Exception) -> list[str]:
    """Words that look like codes: the one that the client cut off, then those of the text in their order."""
    cut_off = getattr(error, "status_code", None)
    return [*([cut_off] if isinstance(cut_off, str) else []), *_CODE.findall(str(error))]
