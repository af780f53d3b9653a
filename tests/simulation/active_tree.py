"""The production generators as a decision tree: a record and the answers so far decide what is asked next.

Generators cannot be copied, so a node is reached by a generator that was never asked anything else, or by one that is
rebuilt from its answers. Invariant: two nodes are one only if their generators hold equal values at the same place.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import FrameType, GeneratorType
from typing import Any

from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import At, MeshRequest, MeshResponse, Steps
from replicator.domain.records import ChangeRecord
from tests.simulation.active_owed import NoAnswer, Owe, Owed, Settle, Silence, draining
from tests.simulation.active_scenario import Drain, Mode

TreeRequest = MeshRequest | Owe | Settle

DONE = -2
NOWHERE = -1


class Node:
    """A record and the answers so far: what is asked next, None when the record is done."""

    __slots__ = ("children", "live", "parent", "request", "response", "root")

    def __init__(
        self, root: tuple[int, ChangeRecord | Owed], parent: Node | None, response: MeshResponse | Silence | None
    ) -> None:
        self.root = root
        self.parent = parent
        self.response = response
        self.live: Steps[Any] | None = None
        self.request: TreeRequest | None = None
        self.children: dict[int, int] = {}


def _suspended(steps: Steps[Any] | None) -> tuple[object, ...] | None:
    """Everything that a suspended generator will ever know: where it stands, and all values it holds, by value.

    Generators that agree in this do the same from here on, so their nodes are one. None when a value is no value.
    """
    if steps is None:
        return ("done",)
    known: list[object] = []
    inner: object = steps
    while isinstance(inner, GeneratorType):
        frame = inner.gi_frame
        assert frame is not None
        known += [inner.gi_code, frame.f_lasti]
        deeper = inner.gi_yieldfrom
        known += [held for held in gc.get_referents(inner) if held is not deeper and not isinstance(held, FrameType)]
        inner = deeper
    moment = tuple(known)
    try:
        hash(moment)
    except TypeError:
        return None
    return moment


class Tree:
    """All moments of all generators of one scenario that were met so far, by number; 0 is none of them.

    `asked` has for each which region is asked (`NOWHERE`: none is; `DONE`: the record is done), and which request. The
    owed table is asked as if it were the region `rows`.
    """

    def __init__(self, mode: Mode, meshes: list[Mesh], drain: Drain = draining, rows: int = NOWHERE) -> None:
        self._mode = mode
        self._drain = drain
        self._rows = rows
        self._meshes = meshes
        self._index = {home: number for number, home in enumerate(dict.fromkeys(mesh.home for mesh in meshes))}
        self._nodes: list[Node | None] = [None]
        self.asked: list[tuple[int, int]] = [(NOWHERE, NOWHERE)]
        self._roots: dict[tuple[int, ChangeRecord | Owed], int] = {}
        self._moments: dict[tuple[object, ...], int] = {}
        self._request_ids: dict[TreeRequest, int] = {}
        self._response_ids: dict[MeshResponse | Silence, int] = {}
        self._responses: list[MeshResponse | Silence] = []

    def response(self, response: MeshResponse | Silence) -> int:
        """The number of an answer."""
        number = self._response_ids.setdefault(response, len(self._responses))
        if number == len(self._responses):
            self._responses.append(response)
        return number

    def request(self, number: int) -> TreeRequest | None:
        """What is asked at a node."""
        node = self._nodes[number]
        assert node is not None
        return node.request

    def _begin(self, region: int, record: ChangeRecord | Owed) -> Steps[Any]:
        mesh = self._meshes[region]
        return self._drain(mesh, record) if isinstance(record, Owed) else self._mode(record, mesh)

    def root(self, region: int, record: ChangeRecord | Owed) -> int:
        """The node at which a record of a region begins, or what the region owes."""
        root = (region, record)
        number = self._roots.get(root)
        if number is None:
            node = Node(root, None, None)
            node.live = self._begin(region, record)
            number = self._roots[root] = self._grown(node, next)
        return number

    def _grown(self, node: Node, advance: Callable[[Steps[Any]], TreeRequest]) -> int:
        """Add a node whose generator stands before its request."""
        assert node.live is not None
        try:
            node.request = advance(node.live)
        except StopIteration:
            node.live = None
        moment = _suspended(node.live)
        if moment is not None:
            number = self._moments.setdefault(moment, len(self._nodes))
            if number < len(self._nodes):
                return number
        self._nodes.append(node)
        self.asked.append(self._addressed(node))
        return len(self._nodes) - 1

    def _addressed(self, node: Node) -> tuple[int, int]:
        request = node.request
        if request is None:
            return DONE, DONE
        number = self._request_ids.setdefault(request, len(self._request_ids))
        if isinstance(request, At):
            return self._index[request.region], number
        return self._rows if isinstance(request, Owe | Settle) else NOWHERE, number

    def child(self, number: int, response: int) -> int:
        """The node behind an answer."""
        node = self._nodes[number]
        assert node is not None
        child = node.children.get(response)
        if child is None:
            answer = self._responses[response]
            steps = node.live or self._replayed(node)
            node.live = None
            grown = Node(node.root, node, answer)
            grown.live = steps
            child = node.children[response] = self._grown(grown, lambda live: _answered(live, answer))
        return child

    def _replayed(self, node: Node) -> Steps[Any]:
        """The generator once more, up to this node."""
        answers: list[MeshResponse | Silence] = []
        while node.parent is not None:
            assert node.response is not None
            answers.append(node.response)
            node = node.parent
        region, record = node.root
        steps = self._begin(region, record)
        next(steps)
        for answer in reversed(answers):
            _answered(steps, answer)
        return steps


def _answered(steps: Steps[Any], answer: MeshResponse | Silence) -> TreeRequest:
    return steps.throw(NoAnswer()) if isinstance(answer, Silence) else steps.send(answer)
