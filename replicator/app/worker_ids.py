"""Ids of workers, and of processes of functions."""

from __future__ import annotations

import os
import socket
from uuid import uuid4

from replicator.domain.identifiers import WorkerId


def new_id() -> WorkerId:
    """An id that no worker had before: hosts share names, processes share numbers, and both come again."""
    return WorkerId(f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}")
