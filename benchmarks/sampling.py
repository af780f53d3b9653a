"""A sampling profiler for one process: where its processor time goes, at a cost that does not change the picture.

    python -m benchmarks.sampling FILE replicator run --config replicator.yaml

Runs a module as `python -m` does and writes to FILE, when it ends, functions by the share of samples in which they are
anywhere on the stack, and by the share in which they are on top. A sample is taken every few milliseconds of
processor time. What the event loop and other extensions do counts for the Python function that called them, or for
none.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

_EVERY_SECONDS = 0.004
_ROWS = 70


class Samples:
    """Samples so far, by function."""

    def __init__(self) -> None:
        self.anywhere: Counter[CodeType] = Counter()
        self.on_top: Counter[CodeType] = Counter()
        self.taken = 0
        self.collections: Counter[int] = Counter()
        self.collecting_microseconds: Counter[int] = Counter()
        self._collecting_since = 0.0

    def take(self, _number: int, frame: FrameType | None) -> None:
        """One sample."""
        self.taken += 1
        if frame is not None:
            self.on_top[frame.f_code] += 1
        seen = set()
        while frame is not None:
            seen.add(frame.f_code)
            frame = frame.f_back
        self.anywhere.update(seen)

    def collect(self, phase: str, figures: dict[str, int]) -> None:
        """The garbage collector begins or ends."""
        if phase == "start":
            self._collecting_since = time.process_time()
        else:
            self.collections[figures["generation"]] += 1
            spent = round((time.process_time() - self._collecting_since) * 1e6)
            self.collecting_microseconds[figures["generation"]] += spent

    def shown(self) -> str:
        """All tables."""
        lines = [f"{self.taken} samples, {self.taken * _EVERY_SECONDS:.1f} s of processor time"]
        lines += [
            f"{count} collections of generation {generation}: {self.collecting_microseconds[generation] / 1e6:.2f} s"
            for generation, count in sorted(self.collections.items())
        ]
        for title, counts in (("anywhere", self.anywhere), ("on top", self.on_top)):
            lines += ["", title]
            lines += [f"{count / self.taken:7.1%}  {_name(code)}" for code, count in counts.most_common(_ROWS)]
        return "\n".join(lines) + "\n"


def _name(code: CodeType) -> str:
    place = code.co_filename.partition("site-packages/")[2] or code.co_filename
    return f"{code.co_qualname if sys.version_info >= (3, 11) else code.co_name}  {place}:{code.co_firstlineno}"


def main() -> None:
    """Run the module."""
    file, module, *arguments = sys.argv[1:]
    samples = Samples()
    signal.signal(signal.SIGPROF, samples.take)
    signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)
    gc.callbacks.append(samples.collect)
    sys.argv = [module, *arguments]
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds text
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(file).write_text(samples.shown())


if __name__ == "__main__":
    main()
