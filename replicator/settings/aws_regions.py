"""Which AWS regions there are: those that the installed AWS client lists, and those that a user has added to it."""

from __future__ import annotations

import difflib
import json
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_LISTS = ("partitions", "endpoints")
"""The client's documents that list regions by partition; users add partitions of their own in either."""

_PSEUDO = "-global"
"""How the names end that stand for services without a region."""


def region_problem(name: str) -> str | None:
    """What is wrong with the name of an AWS region; None when there is such a region.

    The text never holds the name: any value of a configuration may be a secret. It goes on behind the key's path.
    """
    if name in _listed():
        return None
    known = _added()
    if name in known:
        return None
    near = difflib.get_close_matches(name.strip().lower(), sorted(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else ", for example eu-west-1."
    return (
        f"is not an AWS region known to this installation{hint} If the name is right (a newer region,"
        " or a service that is not AWS), set endpoint_url, or endpoints.dynamodb and endpoints.streams"
    )


@cache
def _listed() -> frozenset[str]:
    """The regions in the list that is installed with the client; the client itself takes long to import."""
    spec = find_spec("botocore")
    assert spec is not None
    assert spec.origin is not None
    return _regions_of(json.loads((Path(spec.origin).parent / "data" / "partitions.json").read_bytes()))


def _added() -> frozenset[str]:
    """The regions in every list that the client reads, those in `AWS_DATA_PATH` and `~/.aws/models` included."""
    from botocore.loaders import Loader

    places = os.environ.get("AWS_DATA_PATH", "").split(os.pathsep)
    loader = Loader(extra_search_paths=[str(Path(place).expanduser()) for place in places if place])
    return frozenset().union(*(_regions_of(loader.load_data(document)) for document in _LISTS))


def _regions_of(document: dict[str, list[dict[str, dict[str, object]]]]) -> frozenset[str]:
    names = {name for partition in document["partitions"] for name in partition["regions"]}
    return frozenset(name for name in names if not name.endswith(_PSEUDO))
