"""Who logs never waits for what reads the log."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest

from replicator.observability.log_writer import LogWriter
from tests.patience import PATIENT_SECONDS

_MOST_BYTES = 200_000
_LINES = 10_000
"""More than a pipe and the bound together hold."""


class Log:
    """A log that is written to a pipe, and what was told of lines that were dropped."""

    def __init__(self, descriptor: int) -> None:
        self.lost: list[int] = []
        self.writer = LogWriter(descriptor, self._tell, most_bytes=_MOST_BYTES)
        self.writer.setFormatter(logging.Formatter("%(message)s"))

    def says(self, *lines: str) -> None:
        for line in lines:
            self.writer.handle(logging.LogRecord("log", logging.INFO, "", 0, line, (), None))

    def _tell(self, lines: int) -> None:
        self.lost.append(lines)
        self.says(f"{lines} lost")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def many() -> list[str]:
    return [f"{number:0100}" for number in range(_LINES)]


def drained(reader: int, log: Log) -> list[str]:
    """What comes out of the pipe until everything is written."""
    read: list[bytes] = []

    def drain() -> None:
        while not read or not read[-1].endswith(b"the end\n"):
            read.append(os.read(reader, 65_536))

    reading = threading.Thread(target=drain, daemon=True)
    reading.start()
    assert log.writer.wait_until_written(PATIENT_SECONDS)
    log.says("the end")
    reading.join(PATIENT_SECONDS)
    return b"".join(read).decode().splitlines()


@pytest.mark.parametrize("waits", [True, False], ids=["blocking", "not-blocking"])
def test_a_log_that_nobody_reads_holds_nobody(pipe: tuple[int, int], *, waits: bool) -> None:
    reader, written = pipe
    os.set_blocking(written, waits)
    log = Log(written)
    saying = threading.Thread(target=log.says, args=many(), daemon=True)
    saying.start()
    saying.join(PATIENT_SECONDS)
    assert not saying.is_alive(), "who logs waits for the reader"
    assert not log.writer.wait_until_written(0.0)
    *lines, told, end = drained(reader, log)
    assert lines == many()[: len(lines)], "lines are out of order, or some in between are missing"
    assert (told, end, log.lost) == (f"{_LINES - len(lines)} lost", "the end", [_LINES - len(lines)])
    assert 0 < log.lost[0] < _LINES


def test_a_finalizer_that_logs_holds_nobody(pipe: tuple[int, int]) -> None:
    _, written = pipe
    log = Log(written)
    begun = threading.Event()

    def note(record: logging.LogRecord) -> bool:
        if record.getMessage() == "other":
            begun.set()
        return True

    log.writer.addFilter(note)

    def finalize() -> None:
        """What a collection does while the writing thread looks for lines."""
        with log.writer._changed:
            other.start()
            assert begun.wait(PATIENT_SECONDS)
            time.sleep(0.05)
            log.says("finalizer")

    other = threading.Thread(target=log.says, args=("other",), daemon=True)
    finalizer = threading.Thread(target=finalize, daemon=True)
    finalizer.start()
    for thread in (finalizer, other):
        thread.join(PATIENT_SECONDS)
        assert not thread.is_alive(), "each holds a lock that the other wants"
    assert log.writer.wait_until_written(PATIENT_SECONDS)


def test_a_log_that_is_gone_holds_nobody() -> None:
    reader, written = os.pipe()
    os.close(reader)
    log = Log(written)
    log.says(*many())
    assert log.writer.wait_until_written(PATIENT_SECONDS)
    os.close(written)
