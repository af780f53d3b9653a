"""What a service says becomes a sentence of ours: as much of it as helps, and no more."""

from __future__ import annotations

import ssl

import pytest
from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import translate
from replicator.domain.errors import AccessRefused, KeyRefused

SIGNED = (
    "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for this"
    " request should have been\n'POST\nx-amz-security-token:planted-session-token\n"
)


def test_what_was_signed_is_not_repeated() -> None:
    error = translate(ClientError({"Error": {"Code": "InvalidSignatureException", "Message": SIGNED}}, "x"), "PutItem")
    assert isinstance(error, AccessRefused)
    assert error.message.endswith("does not match the signature you provided.")
    assert "planted" not in error.sentence


def test_tls_to_a_server_without_it_says_what_may_be_wrong() -> None:
    broken = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    assert "(https:// needs a port that speaks TLS)" in translate(broken, "DescribeTable").message
    assert "TLS" not in translate(OSError(111, "Connection refused"), "DescribeTable").message


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        ("AccessDeniedException", "KMS key access denied error: it does not exist, or you may not use it.", KeyRefused),
        ("AccessDeniedException", "User: x is not authorized to perform: kms:Decrypt on resource: y", KeyRefused),
        ("KMSAccessDeniedException", "", KeyRefused),
        ("AccessDeniedException", "User: x is not authorized to perform: dynamodb:PutItem", AccessRefused),
    ],
)
def test_a_refusal_of_a_key_is_told_from_one_of_a_table(code: str, said: str, kind: type[AccessRefused]) -> None:
    assert type(translate(ClientError({"Error": {"Code": code, "Message": said}}, "x"), "PutItem")) is kind
