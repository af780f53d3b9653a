"""Stamps: what mode `active-active` writes into an item, and how two writes of any regions are ordered.

Owns versions, the stamp's text, the content hash and the causal `bump`. Invariant: the text of versions is fixed-width
ASCII, so byte order, DynamoDB's `<` on strings and the order of `Version` agree; and a stamp's text begins with its
version's, so a stamp is never below its own version. Nonces are handed in by the code that carries a write out.
"""

from __future__ import annotations

import enum
import re
from binascii import b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from replicator.domain.image import Image, canonical, parted, typed_value, unreserved
from replicator.domain.versions import GENERATION_DIGITS, SEQUENCE_DIGITS, STAMP

NO_PARENT = "-"
"""In place of the parent of a write that overwrote nothing whose version is known."""

NONCE_BYTES = 6
"""Randomness of a nonce: 8 characters of base64url."""

_CONTENT_LENGTH = 16
_PARENT_LENGTH = 12
_LARGEST_COUNTER = 999_999
_VERSION = re.compile(r"([0-9]{16})\.([0-9]{6})\.([a-z]{2})\.([0-9]{53})")
_TEXT = re.compile(_VERSION.pattern + r"!([PD])!([\w-]{16})!([\w-]{12}|-)![\w-]{8}", re.ASCII)
URL_SAFE = bytes.maketrans(b"+/", b"-_")
"""From base64 to base64url."""


class Version(msgspec.Struct, frozen=True, order=True):
    """Orders any two writes: time in microseconds since 1970, counter, region id, generation and sequence number."""

    micros: int
    counter: int
    region: str
    sequence: int

    @property
    def text(self) -> str:
        """The version as 80 ASCII characters that sort like it."""
        return f"{self.micros:016d}.{self.counter:06d}.{self.region}.{self.sequence:053d}"

    def is_write(self, region: str, sequence: int) -> bool:
        """Whether this is a version of that write; a write may have had two."""
        return (self.region, self.sequence) == (region, sequence)


def seed_version(region: str) -> Version:
    """The version of what stood in a region before its stream: below every write of any region."""
    return Version(0, 0, region, 0)


def write_sequence(generation: int, number: int) -> int:
    """The order of a write among all of its table and region, also across streams: generation, then sequence number."""
    if not (0 <= generation < 10**GENERATION_DIGITS and 0 <= number < 10**SEQUENCE_DIGITS):
        raise ValueError(f"generation {generation} or sequence number {number} does not fit a version")
    place: int = generation * 10**SEQUENCE_DIGITS + number
    return place


def parse_version(text: str) -> Version | None:
    """The version that a text spells, None when it spells none."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    micros, counter, region, sequence = match.groups()
    return Version(int(micros), int(counter), region, int(sequence))


def bumped(raw: Version, floors: Iterable[Version | None]) -> Version:
    """The least version of the write of `raw` that is at least `raw` and above every floor.

    Versions of the write itself are no floors. A function of the greatest floor only, so that a replay which knows
    more floors of earlier writes never exceeds what a later write of its region was already given.
    """
    greatest = max((floor for floor in floors if floor is not None and not _same_write(floor, raw)), default=None)
    if greatest is None or raw > greatest:
        return raw
    least = replace(raw, micros=greatest.micros, counter=greatest.counter)
    return least if least > greatest else _next_counter(least)


def _same_write(one: Version, two: Version) -> bool:
    return one.is_write(two.region, two.sequence)


def _next_counter(version: Version) -> Version:
    if version.counter < _LARGEST_COUNTER:
        return replace(version, counter=version.counter + 1)
    return replace(version, micros=version.micros + 1, counter=0)


# -- hashes --------------------------------------------------------------------------------------------------------


def content_of(image: Image, attribute: str = STAMP) -> str:
    """Hash of what an item holds besides its stamp: equal exactly for equal items, however they are spelled."""
    return content_of_bare(unreserved(image, attribute), attribute)


class _Known:
    """Hashes of contents by the digest of how an item was spelled: the last 8192 at least, twice as many at most.

    One write is looked at in the streams of all regions, a page or two apart, and to hash its bytes costs a tenth of
    what its normal form does.
    """

    def __init__(self) -> None:
        self._young: dict[bytes, str] = {}
        self._old: dict[bytes, str] = {}

    def of(self, bare: Image, attribute: str) -> str:
        spelled = sha256(bare.wire).digest()
        content = self._young.get(spelled) or self._old.get(spelled)
        if content is None:
            if len(self._young) >= _AT_LEAST_KNOWN:
                self._old, self._young = self._young, {}
            content = self._young[spelled] = _digest(canonical(bare, attribute), _CONTENT_LENGTH)
        return content


_AT_LEAST_KNOWN = 8192
content_of_bare = _Known().of
"""The same of an image that has no stamp."""


def parent_of(version: Version) -> str:
    """Short hash of the version that a write overwrote; only ever compared for equality."""
    return _digest(version.text.encode(), _PARENT_LENGTH)


def _digest(data: bytes, length: int) -> str:
    """As many characters of base64url of the SHA-256."""
    return b2a_base64(sha256(data).digest(), newline=False)[:length].translate(URL_SAFE).decode()


# -- stamps --------------------------------------------------------------------------------------------------------


class StampKind(enum.Enum):
    """What a stamp says about its item."""

    VALUE = "P"
    MARK = "D"  # marked for deletion by the delete whose version it carries


_KINDS = {kind.value: kind for kind in StampKind}


class Stamp(msgspec.Struct, frozen=True):
    """A stamp without its nonce: version, kind, hash of the content, hash of the parent's version."""

    version: Version
    kind: StampKind
    content: str
    parent: str

    def sealed(self, nonce: str) -> str:
        """The attribute's text. `nonce`: 8 characters of base64url, new for every call that writes."""
        return f"{self.version.text}!{self.kind.value}!{self.content}!{self.parent}!{nonce}"


def mark_prefix(version: Version) -> str:
    """How the stamp of an item that this delete marked begins."""
    return f"{version.text}!{StampKind.MARK.value}"


def parse_stamp(text: str) -> Stamp | None:
    """The stamp that a text spells, None when it is no stamp of this mode."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    micros, counter, region, sequence, kind, content, parent = match.groups()
    return Stamp(Version(int(micros), int(counter), region, int(sequence)), _KINDS[kind], content, parent)


class Held(msgspec.Struct, frozen=True):
    """An item as the protocol looks at it.

    `seen` is the wire JSON of its stamp attribute exactly as it is there (None: it has none), `stamp` what that
    means (None also when it is no stamp of ours), `content` the hash of everything else, which `bare` holds.
    """

    image: Image
    bare: Image
    seen: bytes | None
    stamp: Stamp | None
    content: str

    @property
    def version(self) -> Version | None:
        """The version that the item carries."""
        return None if self.stamp is None else self.stamp.version

    @property
    def kind(self) -> StampKind | None:
        """What its stamp says about the item."""
        return None if self.stamp is None else self.stamp.kind

    @property
    def intact(self) -> bool:
        """Whether the item is as it was stamped; else a local write is still ahead in this region's stream."""
        return self.stamp is not None and self.stamp.content == self.content


def held(image: Image | None, attribute: str = STAMP, like: Held | None = None) -> Held | None:
    """Look at an item; None when there is none. `attribute` is the name of the attribute that carries the stamp.

    `like`: what was looked at before and is likely to be the same, or to have the same stamp or content.
    """
    if image is None:
        return None
    wire = image.wire
    if len(wire) <= _LARGEST_KEPT:
        return _held_of_wire(wire, attribute)
    if like is not None and like.image.wire == wire:
        return like
    return _held(image, attribute, like)


_LARGEST_KEPT = 256
"""Bytes of an item up to which what was seen of it is kept for a while; to keep more costs more than to look again."""


@lru_cache(maxsize=2048)
def _held_of_wire(wire: bytes, attribute: str) -> Held:
    return _held(Image(wire), attribute, None)


def _held(image: Image, attribute: str, like: Held | None) -> Held:
    bare, seen = parted(image, attribute)
    if like is None:
        return Held(image, bare, seen, stamp_in(seen), content_of_bare(bare, attribute))
    stamp = like.stamp if seen == like.seen else stamp_in(seen)
    content = like.content if bare.wire == like.bare.wire else content_of_bare(bare, attribute)
    return Held(image, bare, seen, stamp, content)


@lru_cache(maxsize=4096)
def stamp_in(seen: bytes | None) -> Stamp | None:
    """The stamp that an attribute holds, as wire JSON; None when it is none of ours, or there is no attribute."""
    text = None if seen is None else typed_value(seen).get("S")
    return parse_stamp(text) if isinstance(text, str) else None


# -- side rows -----------------------------------------------------------------------------------------------------


class Tombstone(msgspec.Struct, frozen=True):
    """A delete: its version, the hash of its parent's version, the hash of the content that it deleted."""

    version: Version
    parent: str
    content: str


class SideRow(msgspec.Struct, frozen=True):
    """What a region remembers beside an item.

    `floor` is a version that was given to a write whose item was gone before it was stamped. `removed` is the version
    of the delete that last took effect here, and `removed_at` where in this region's stream (`ls`, `lv`).
    """

    tombstone: Tombstone | None = None
    floor: Version | None = None
    removed_at: int | None = None
    removed: Version | None = None

    @property
    def deleted(self) -> Version | None:
        """The tombstone's version."""
        return None if self.tombstone is None else self.tombstone.version

    def removed_before(self, sequence: int) -> Version | None:
        """The delete that a local write with this sequence saw taking effect."""
        return self.removed if self.removed_at is not None and self.removed_at < sequence else None


NO_ROW = SideRow()


def given_before(version: Version | None, region: str, sequence: int) -> Version | None:
    """The version if it was given to an earlier write of this region, else None."""
    earlier = version is not None and version.region == region and version.sequence < sequence
    return version if earlier else None
