"""What an item looks like at a target that is not to hold it as it is: fewer, renamed, masked or constant attributes.

Pure, and declared per target. Invariant: the key stays as it is, unless a mapping makes another one of it, of which no
two items have the same (`key_mapping`); the version stays, for it belongs to the source's key; two attributes never
become one. Names are of top-level attributes, and values are carried as the bytes that came.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from replicator.domain.errors import MalformedRecord, PoisonRecord
from replicator.domain.image import Image, canonical_value
from replicator.domain.key_mapping import KeyMapping
from replicator.domain.records import ItemKey
from replicator.domain.values import replace

_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Transform:
    """Steps, in this order; `project`, `drop`, `masked` and the left sides of `rename` are names at the source.

    `project`: the attributes that are kept beside the key, None: all. `constant`: attributes that every item has at the
    target, as typed JSON. `secret` keys the masks: equal values have equal masks, and no mask tells its value. `key`:
    the key at the target, where it is another one; what the source's key held is then an attribute like others.
    `is_done`: images come as the target is to hold them, still with the source's key beside them.
    """

    project: frozenset[str] | None = None
    drop: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    rename: tuple[tuple[str, str], ...] = ()
    constant: tuple[tuple[str, bytes], ...] = ()
    secret: bytes = field(default=b"", repr=False)
    key: KeyMapping | None = None
    is_done: bool = False

    @property
    def done(self) -> Transform:
        """The same for images that went through it."""
        return replace(self, is_done=True)

    @property
    def touched(self) -> frozenset[str]:
        """Attributes that it takes away, changes or sets and that must not be of the target's key.

        Where the key is made anew that is done last, so it may replace what was taken away before.
        """
        given = frozenset(new for _, new in self.rename) | {name for name, _ in self.constant}
        return given if self.key is not None else given | self.drop | self.masked | {old for old, _ in self.rename}

    def apply(self, key: ItemKey, image: Image) -> Image:
        """The image as the target is to hold it; `PoisonRecord` where that cannot be said without a loss."""
        if self.is_done:
            return image
        there = key if self.key is None else self.key.mapped(key)
        self._check(frozenset(there.names))
        try:
            raw = _RAW.decode(image.wire)
        except (msgspec.DecodeError, ValueError) as error:
            raise MalformedRecord(f"An item image is not DynamoDB JSON ({error}).") from error
        always = key.names if self.key is None else ()
        kept = {
            name: value
            for name, value in raw.items()
            if name in always or ((self.project is None or name in self.project) and name not in self.drop)
        }
        for name in self.masked & kept.keys():
            kept[name] = self._mask(kept[name])
        kept = self._renamed(kept)
        kept |= {name: msgspec.Raw(typed) for name, typed in self.constant}
        return Image(_ENCODE(kept if self.key is None else self._rekeyed(kept, key, there)))

    def _check(self, names: frozenset[str]) -> None:
        if touched := sorted(names & self.touched):
            raise PoisonRecord(
                f"The transform changes {', '.join(touched)}, an attribute of the key.",
                advice="Leave attributes of the key out of the transform.",
            )
        if self.key is not None and (hidden := sorted(self.masked & self.key.sources)):
            raise PoisonRecord(
                f"The transform masks {', '.join(hidden)}, and shows it in the key.",
                advice="Leave it out of the mask, or out of transform.key.",
            )

    @staticmethod
    def _rekeyed(kept: dict[str, msgspec.Raw], key: ItemKey, there: ItemKey) -> dict[str, msgspec.Raw]:
        """With the target's key, in whose way only the source's key may be: that one is held in it."""
        if taken := sorted(kept.keys() & set(there.names) - set(key.names)):
            raise PoisonRecord(
                f"The item has an attribute {', '.join(taken)}, and the key there has that name.",
                advice="Rename that attribute in the transform, or drop it.",
            )
        return kept | {name: msgspec.Raw(_ENCODE({kind: value})) for name, kind, value in there.parts}

    def _renamed(self, kept: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
        renames = {old: new for old, new in self.rename if old in kept}
        found: dict[str, msgspec.Raw] = {}
        for name, value in kept.items():
            new = renames.get(name, name)
            if new in found:
                raise PoisonRecord(
                    f"The item has an attribute {new}, and another one is renamed to it.",
                    advice="Choose another name in the transform, or drop the one that is in its way.",
                )
            found[new] = value
        return found

    def _mask(self, value: msgspec.Raw) -> msgspec.Raw:
        try:
            content = _ENCODE(canonical_value(msgspec.json.decode(value)))
        except (AttributeError, TypeError, ValueError, ArithmeticError) as error:
            raise MalformedRecord("A value that is to be masked is not DynamoDB JSON.") from error
        return msgspec.Raw(_ENCODE({"S": hmac.new(self.secret, content, sha256).hexdigest()}))


def shaped(transform: Transform | None, key: ItemKey, image: Image) -> Image:
    """An image as a target is to hold it, which has a transform or none."""
    return image if transform is None else transform.apply(key, image)


def held_under(transform: Transform | None, key: ItemKey) -> ItemKey | None:
    """The key of an item at a target; None where it can have none there."""
    if transform is None or transform.key is None:
        return key
    try:
        return transform.key.mapped(key)
    except PoisonRecord:
        return None


def shaped_if_it_can_be(transform: Transform | None, key: ItemKey, image: Image | None) -> Image | None:
    """What a target may have held of an image; None where it never held any."""
    if image is None or transform is None:
        return image
    try:
        return transform.apply(key, image)
    except (PoisonRecord, MalformedRecord):
        return None
