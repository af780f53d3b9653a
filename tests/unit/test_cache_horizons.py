"""What an entry means that is read again a while behind a change."""

from __future__ import annotations

from collections import Counter

import pytest

from replicator.domain.cache_horizons import Horizon, Meaning, VerifyPolicy, meaning
from replicator.domain.image import Image
from replicator.domain.stamps import Version
from replicator.domain.versions import UNSTAMPED

V1, V2, V3 = ("1" * 55 + digit for digit in "123")
FIRST, LATER = (Version(micros, 0, "eu", 1).text for micros in (5_000_000, 9_000_000))


def item(stamp: str | None) -> Image:
    typed = "" if stamp is None else f',"_rep":{{"S":"{stamp}"}}'
    return Image(b'{"pk":{"S":"k"}%b}' % typed.encode())


def stamped(version: str) -> Image:
    return item(f"{version}!P!{'c' * 16}!-!{'n' * 8}")


def value(version: str) -> bytes:
    return b"V:%b|{}" % version.encode()


@pytest.mark.parametrize(
    ("head", "there", "made", "means"),
    [
        (b"", item(V2), V2, Meaning.ABSENT),
        (b"L:lease", item(V2), V2, Meaning.ABSENT),
        (b"L:lease|" + value(V2), item(V2), V2, Meaning.CONSISTENT),
        (b"L:lease|L:other", item(V2), V2, Meaning.ABSENT),
        (value(V2), item(V2), V2, Meaning.CONSISTENT),
        (value(V3), item(V2), V2, Meaning.CONSISTENT),
        (value(V1), item(V2), V2, Meaning.INCONSISTENT),
        (b"T:" + V1.encode(), item(V2), V2, Meaning.INCONSISTENT),
        (value(V2), item(V3), V2, Meaning.OVERTAKEN),
        (value(V1), item(V3), V2, Meaning.INCONSISTENT),
        (value(V1), item(V1), V2, Meaning.CONSISTENT),
        (b"an entry of others", item(V2), V2, Meaning.OPAQUE),
        (value(V1), item("no version"), V2, Meaning.OPAQUE),
        (value(UNSTAMPED), item(None), V2, Meaning.CONSISTENT),
        (value(V1), None, V2, Meaning.INCONSISTENT),
        (value(V3), None, V2, Meaning.OVERTAKEN),
        (b"T:" + V1.encode(), None, V2, Meaning.CONSISTENT),
        (b"T:", None, V2, Meaning.CONSISTENT),
        (b"others", None, V2, Meaning.OPAQUE),
    ],
)
def test_an_entry_beside_an_item_of_mode_ordered(head: bytes, there: Image | None, made: str, means: Meaning) -> None:
    assert meaning(head, there, made, 0.0) is means


@pytest.mark.parametrize(
    ("head", "there", "before", "means"),
    [
        (value(LATER), stamped(LATER), 20.0, Meaning.CONSISTENT),
        (value(FIRST), stamped(LATER), 20.0, Meaning.INCONSISTENT),
        (value(FIRST), stamped(LATER), 9.0, Meaning.INCONSISTENT),
        (value(FIRST), stamped(LATER), 8.9, Meaning.OVERTAKEN),
        (value(UNSTAMPED), stamped(LATER), 20.0, Meaning.OPAQUE),
        (value(UNSTAMPED), item(None), 20.0, Meaning.OPAQUE),
        (value(V1), item(V2), 20.0, Meaning.OVERTAKEN),
        (value(LATER), None, 20.0, Meaning.OPAQUE),
    ],
)
def test_an_entry_beside_an_item_whose_version_says_when_it_was_made(
    head: bytes, there: Image | None, before: float, means: Meaning
) -> None:
    assert meaning(head, there, None, before) is means


def test_only_what_was_judged_makes_nines() -> None:
    found = Counter({Meaning.CONSISTENT: 999, Meaning.INCONSISTENT: 1, Meaning.ABSENT: 5000, Meaning.OPAQUE: 7})
    assert (Horizon(1.0, found).checked, Horizon(1.0, found).nines) == (1000, 3.0)
    assert Horizon(1.0, Counter({Meaning.ABSENT: 3})).nines is None
    assert Horizon(5.0, Counter({Meaning.CONSISTENT: 100})).nines == 2.0


def test_so_many_samples_are_kept_that_their_reads_fit_in() -> None:
    assert VerifyPolicy(reads=5).most == 100
    assert VerifyPolicy(reads=1).most == 20
