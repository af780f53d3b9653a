"""Error codes of AWS services translated into the program's errors, once, as one table."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from replicator.domain.errors import (
    AccessRefused,
    IteratorExpired,
    KeyRefused,
    PoisonRecord,
    RecordsTrimmed,
    ReplicatorError,
    SchemaMismatch,
    TableMissing,
    Throttled,
    Unreachable,
)

_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ProvisionedThroughputExceeded",
        "ThrottlingException",
        "ThrottlingError",
        "Throttling",
        "RequestLimitExceeded",
        "KMSThrottlingException",
        "LimitExceededException",
        "TooManyRequestsException",
    }
)

CREDENTIAL_CODES = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
"""Answers to credentials that are unknown, over, or not what they were: others may be at hand by now."""

_REFUSALS = CREDENTIAL_CODES | {
    "AccessDenied",
    "AccessDeniedException",
    "NotAuthorized",
    "OptInRequired",
    "KMSAccessDeniedException",
}

_POISONS = frozenset(
    {
        "ValidationException",
        "ValidationError",
        "ItemCollectionSizeLimitExceededException",
        "ItemCollectionSizeLimitExceeded",
    }
)

_BY_CODE: dict[str, type[ReplicatorError]] = {
    **dict.fromkeys(_THROTTLES, Throttled),
    **dict.fromkeys(_REFUSALS, AccessRefused),
    **dict.fromkeys(_POISONS, PoisonRecord),
    "ResourceNotFoundException": TableMissing,
    "ExpiredIteratorException": IteratorExpired,
    "TrimmedDataAccessException": RecordsTrimmed,
}

_LONGEST_REASON = 300
_RENEW = (
    "Renew the credentials of the region, or correct its profile, role_arn or external_id, and this machine's clock;"
    " files, roles and tokens are reloaded automatically, but credentials in the environment need a restart."
)

_OF_THE_KEY = ("does not match the schema", "missing the key", "type mismatch for key")
"""What a refusal says when it is the table's key that does not fit, and so no item can."""


_OF_A_KMS_KEY = ("KMSAccessDenied", "KMS key", "AWSKMS", " kms:")
"""What a refusal says when it is of the key that encrypts something."""


_NO_TLS = "WRONG_VERSION_NUMBER"
"""What the TLS library says to an answer without TLS."""


def error_code(error: ClientError) -> str:
    """The service's code of a client error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def translate(error: Exception, what: str) -> ReplicatorError:
    """A client's error as ours. `what` names the deed and its object, for example `PutItem on orders in eu`."""
    if isinstance(error, ClientError):
        code = error_code(error)
        reason = _first_line(str(error.response.get("Error", {}).get("Message", "")))
        kind, message = _BY_CODE.get(code, Unreachable), f"{what} failed: {code}: {reason}"
        if kind is PoisonRecord:
            return refused(message)
        if kind is AccessRefused and any(words in f"{code} {reason}" for words in _OF_A_KMS_KEY):
            kind = KeyRefused
        return kind(message, advice=_RENEW if code in CREDENTIAL_CODES else None)
    if isinstance(error, CredentialRetrievalError):
        return Unreachable(f"{what} has no credentials now: {str(error).rstrip('. ')}.", advice=_RENEW)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound | TokenRetrievalError):
        return AccessRefused(f"{what} has no usable credentials: {str(error).rstrip('. ')}.")
    if isinstance(error, EndpointConnectionError | HTTPClientError | OSError | TimeoutError):
        reason = str(error)[:_LONGEST_REASON].rstrip(". ")
        doubt = " (https:// needs a port that speaks TLS)" if _NO_TLS in str(error) else ""
        return Unreachable(f"{what} got no answer: {reason}{doubt}.")
    return Unreachable(f"{what} failed: {type(error).__name__}: {str(error)[:_LONGEST_REASON].rstrip('. ')}.")


def _first_line(said: str) -> str:
    """What a service says, without what may follow: of a wrong signature all that was signed, a session's token too."""
    return (said.splitlines() or [""])[0][:_LONGEST_REASON]


def refused(message: str) -> ReplicatorError:
    """A refusal as an error: of the item, or of every item because the table's key is another one."""
    said = message.lower()
    return SchemaMismatch(message) if any(words in said for words in _OF_THE_KEY) else PoisonRecord(message)


CLIENT_ERRORS = (ClientError, BotoCoreError, ResponseParserError, OSError, TimeoutError)


def is_object(body: bytes) -> bool:
    """Whether a body looks like a JSON object, at no cost."""
    text = body.strip()
    return text.startswith(b"{") and text.endswith(b"}")


def member(answer: Any, name: str, what: str) -> Any:
    """What every answer of its kind has; one without it comes from something else."""
    if not isinstance(answer, dict) or name not in answer:
        raise Unreachable(f"{what} got an answer without {name}, so it is not DynamoDB's.")
    return answer[name]
