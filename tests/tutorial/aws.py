"""A stand-in for the AWS command line: `aws dynamodb OPERATION --option value ...` at a local server.

Options are those of the API in other letters; values are JSON, or the short form `Name=value,Name=value`.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any


def main(arguments: list[str]) -> int:
    """Send one request and print its answer."""
    service, operation, *rest = arguments
    assert service == "dynamodb"
    if operation == "wait":
        return 0  # a local table is there at once
    parameters: dict[str, Any] = {}
    options: dict[str, list[str]] = {}
    for word in rest:
        if word.startswith("--"):
            options[word[2:]] = []
        else:
            options[list(options)[-1]].append(word)
    (region,) = options.pop("region")
    for name, words in options.items():
        value = [_value(word) for word in words]
        parameters[_api(name)] = value if name in {"attribute-definitions", "key-schema"} else value[0]
    scope = f"Credential={os.environ['AWS_ACCESS_KEY_ID']}/20200101/{region}/dynamodb/aws4_request"
    headers = {
        "X-Amz-Target": f"DynamoDB_20120810.{_api(operation)}",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
    }
    request = urllib.request.Request(os.environ["LOCAL_DYNAMODB"], json.dumps(parameters).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        sys.stdout.write(answer.read().decode() + "\n")
    return 0


def _api(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _value(word: str) -> Any:
    if word.startswith("{"):
        return json.loads(word)
    if "=" in word:
        return dict(part.split("=") for part in word.split(","))
    return word


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
