"""What is sent for a batch of cache actions, and what became of it.

A call is one command for actions of one kind. Invariant: what drops entries goes first. An entry that is absent stays
so, so a key's actions come to the same in this order as in their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from secrets import token_hex
from typing import Any, TypeVar

import msgspec
from redis.crc import key_slot
from redis.exceptions import ResponseError

from replicator.adapters.redis.scripts import (
    APPLY,
    APPLY_HASH,
    FILL,
    FILL_HASH,
    REFILL,
    TELL,
    THROUGH,
    THROUGH_HASH,
    digest,
)
from replicator.domain.cache_keys import CacheAction, Invalidate, Publish, Refill, Refresh
from replicator.domain.cache_values import hash_payload
from replicator.ports.targets import CacheFill

FOREIGN = b"?"
"""Stands for what is no entry of ours."""

_KEYS_PER_CALL = 256
_LEASE_MS = 5_000
_STORING = {
    (False, False): APPLY,
    (True, False): THROUGH,
    (False, True): APPLY_HASH,
    (True, True): THROUGH_HASH,
}
"""The scripts of entries that are stored, by whether they fill what is absent, and whether they are hashes."""
_ONLY_DROPS = {Invalidate}
_REFILL_DIGEST = digest(REFILL)
_TELL_DIGEST = digest(TELL)
Part = TypeVar("Part")
Action = TypeVar("Action", bound=CacheAction)
Command = tuple[Any, ...]
Maker = Callable[[Sequence[Any]], Command]
"""Makes one command of actions of one kind."""
Split = Callable[[Sequence[Any]], Iterable[Sequence[Any]]]
"""Cuts actions of one kind into those of one call."""


class Call(msgspec.Struct, frozen=True, eq=False):
    """One command for some actions; `sure` also works on a server that does not know our script."""

    actions: Sequence[Any]
    first: Maker
    sure: Maker

    def command(self, *, sure: bool = False) -> Command:
        """The command as it is sent."""
        return (self.sure if sure else self.first)(self.actions)

    def singly(self) -> Iterator[Call]:
        """The same, with a call for each action."""
        return (Call([action], self.first, self.sure) for action in self.actions)


def calls(actions: Sequence[CacheAction], split: Split) -> Iterator[Call]:
    """The calls that carry actions out, in their order; one kind of call per kind of action."""
    if set(map(type, actions)) == _ONLY_DROPS:  # most batches are that, and to look for others takes as long as this
        for unlinks in split(actions):
            yield Call(unlinks, _unlink, _unlink)
        return
    for unlinks in split([action for action in actions if isinstance(action, Invalidate)]):
        yield Call(unlinks, _unlink, _unlink)
    stored = [action for action in actions if isinstance(action, Refresh)]
    for (through, hashed), (first, sure) in _MAKERS.items():
        kind = [action for action in stored if (action.through, action.hashed) == (through, hashed)]
        for some in split(kind) if kind else ():
            yield Call(some, first, sure)
    for through in (False, True):
        refills = [action for action in actions if isinstance(action, Refill) and action.through == through]
        for part in split(refills) if refills else ():
            yield Call(part, _refill_by_digest, _refill_by_text)
    for told in _by_name([action for action in actions if isinstance(action, Publish)]):
        yield Call(told, _tell_by_digest, _tell_by_text)


def _by_name(actions: Sequence[Publish]) -> Iterator[Sequence[Publish]]:
    """Messages of one channel or stream each, in their order."""
    names: dict[tuple[str, int], list[Publish]] = {}
    for action in actions:
        names.setdefault((action.name, action.most), []).append(action)
    for found in names.values():
        yield from parts(found)


def parts(some: Sequence[Part]) -> Iterator[Sequence[Part]]:
    """As many as one call takes."""
    return (some[start : start + _KEYS_PER_CALL] for start in range(0, len(some), _KEYS_PER_CALL))


def by_slot(actions: Sequence[Action]) -> Iterator[Sequence[Action]]:
    """Actions on keys of one slot of a cluster each."""
    slots: dict[int, list[Action]] = {}
    for action in actions:
        slots.setdefault(slot_of(action.key), []).append(action)
    for found in slots.values():
        yield from parts(found)


def slot_of(key: str) -> int:
    """The slot of a cluster that a key belongs to."""
    return key_slot(key.encode())


class Tally(msgspec.Struct):
    """What became of the actions so far."""

    changed: int = 0
    unstored: set[str] = msgspec.field(default_factory=set)
    refused: dict[str, Exception] = msgspec.field(default_factory=dict)
    leased: dict[str, str] = msgspec.field(default_factory=dict)

    def take(self, actions: Sequence[CacheAction], answer: Any) -> None:
        """Add an answer: a number of UNLINK, or what the script says."""
        if isinstance(answer, int):
            self.changed += answer
            return
        changed, unstored, refused, leased = answer
        self.changed += changed
        self.unstored.update(actions[place - 1].key for place in unstored)
        for place, reason in zip(refused[::2], refused[1::2], strict=True):
            self.refused[actions[place - 1].key] = ResponseError(reason.decode(errors="replace"))
        for place, lease in zip(leased[::2], leased[1::2], strict=True):
            self.leased[actions[place - 1].key] = lease.decode()

    def refuse(self, actions: Sequence[CacheAction], error: Exception) -> None:
        """None of the actions took effect, or it is not known whether they did."""
        self.refused.update((action.key, error) for action in actions)


def _unlink(actions: Sequence[Invalidate]) -> Command:
    return "UNLINK", *(action.key for action in actions)


def _by_digest(script: str, *, through: bool) -> Maker:
    name = digest(script)
    return lambda actions: ("EVALSHA", name, *_operands(actions, through=through))


def _by_text(script: str, *, through: bool) -> Maker:
    return lambda actions: ("EVAL", script, *_operands(actions, through=through))


_MAKERS = {
    (through, hashed): (_by_digest(script, through=through), _by_text(script, through=through))
    for (through, hashed), script in _STORING.items()
}
"""How their calls are made: its maker distinguishes a script from another one."""


def _operands(actions: Sequence[Refresh], *, through: bool) -> list[Any]:
    operands: list[Any] = [len(actions), *(action.key for action in actions)]
    for action in actions:
        operands += [action.version, action.payload or b"", action.ttl_ms]
    return [*operands, token_hex(8), _LEASE_MS] if through else operands


def _refill_by_digest(actions: Sequence[Refill]) -> Command:
    return "EVALSHA", _REFILL_DIGEST, *_refilled(actions)


def _refill_by_text(actions: Sequence[Refill]) -> Command:
    return "EVAL", REFILL, *_refilled(actions)


def _refilled(actions: Sequence[Refill]) -> list[Any]:
    keys = [action.key for action in actions]
    return [len(keys), *keys, token_hex(8), _LEASE_MS, int(actions[0].through)]


def _tell_by_digest(actions: Sequence[Publish]) -> Command:
    return "EVALSHA", _TELL_DIGEST, *_told(actions)


def _tell_by_text(actions: Sequence[Publish]) -> Command:
    return "EVAL", TELL, *_told(actions)


def _told(actions: Sequence[Publish]) -> list[Any]:
    first = actions[0]
    keys = [1, first.name] if first.most else [0]
    return [*keys, first.name, first.most, *(action.message for action in actions)]


def filling(fill: CacheFill) -> Command:
    """The command that stores an entry under its lease."""
    return "EVAL", FILL_HASH if fill.hashed else FILL, 1, fill.key, fill.lease, fill.entry, fill.ttl_ms


def version_of_hash(key: str) -> Command:
    """The command that reads the version of an entry that is a hash."""
    return "HGET", key, ""


def hash_head(answer: Any) -> bytes:
    """What a string entry of that version would begin with; that it is none of ours, without one."""
    return b"V:%b|" % answer if isinstance(answer, bytes) else FOREIGN


def hash_entry(fields: Mapping[bytes, bytes]) -> bytes:
    """A hash as the text that a string entry would hold; one without a version is none of ours."""
    texts = {name.decode(errors="replace"): text.decode(errors="replace") for name, text in fields.items() if name}
    return hash_head(fields.get(b"")) + hash_payload(texts)


def as_fields(answer: Any) -> Mapping[bytes, bytes]:
    """What HGETALL answers, as a client gives it: a mapping, or names and texts in turns."""
    return answer if isinstance(answer, Mapping) else dict(zip(answer[::2], answer[1::2], strict=True))
