"""Where a running daemon's processor time goes, by stage of a record's way.

    python -m benchmarks.hot_path.stages FILE replicator run --config replicator.yaml

Runs a module as `python -m` does. SIGUSR2 begins to count, a second one ends it and writes samples by stage to FILE.
A sample counts for the innermost function on the stack that belongs to a stage. What neither it nor a caller of it
names, such as the answers that a connection receives, counts for the transport.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

_EVERY_SECONDS = 0.001
_STAGES = (
    ("replicator/adapters/redis/", "Redis"),
    ("replicator/adapters/dynamodb/stream", "GetRecords"),
    ("replicator/engine/reading/", "GetRecords"),
    ("replicator/adapters/dynamodb/coordination/", "checkpoint"),
    ("replicator/adapters/dynamodb/", "write"),
    ("replicator/engine/", "decide"),
    ("replicator/observability/", "decide"),
)
"""Parts of a file's path, and the stage that it belongs to; the first one counts."""

_BETWEEN = (("replicator/domain/", "decide"), ("replicator/adapters/aws/", "transport"))
"""The same for what several stages use: a caller's stage counts."""

OTHER = "other"


class Samples:
    """Samples by stage, while they are counted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, tuple[str | None, str | None]] = {}
        self.by_stage: Counter[str] = Counter()

    def take(self, _number: int, frame: FrameType | None) -> None:
        """One sample."""
        fallback = None
        while frame is not None:
            stage, between = self._stage(frame.f_code.co_filename)
            if stage is not None:
                self.by_stage[stage] += 1
                return
            fallback = fallback or between
            frame = frame.f_back
        self.by_stage[fallback or OTHER] += 1

    def _stage(self, file: str) -> tuple[str | None, str | None]:
        known = self._known.get(file)
        if known is None:
            found = next((stage for part, stage in _STAGES if part in file), None)
            known = self._known[file] = (found, next((stage for part, stage in _BETWEEN if part in file), None))
        return known

    def turn(self, _number: int, _frame: FrameType | None) -> None:
        """Begin, or end."""
        if signal.getitimer(signal.ITIMER_PROF)[0]:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._file.write_text(json.dumps(self.by_stage))
        else:
            signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)


def main() -> None:
    """Run the module."""
    file, module, *arguments = sys.argv[1:]
    samples = Samples(Path(file))
    signal.signal(signal.SIGPROF, samples.take)
    signal.signal(signal.SIGUSR2, samples.turn)
    sys.argv = [module, *arguments]
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds text
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
