from __future__ import annotations

import asyncio
import gc
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from replicator.laboratory.servers import MiniStack
from tests.seeds import HISTORIES
from tests.virtual_time import VirtualTime

# Else every process that a test starts compiles everything anew: that would cost more than all tests together.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A run in the background ignores SIGINT, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does; it proves nothing about the code.
settings.register_profile(
    "replicator",
    max_examples=max(50, HISTORIES),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


LONG = {
    "cli/test_conflicts.py",
    "cli/test_living_daemon.py",
    "cli/test_living_operators.py",
    "cli/test_mesh_commands.py",
    "cli/test_mesh_worlds.py",
    "cli/test_regions_away.py",
    "contract/test_stamped_region.py",
    "contract/test_versioned_region.py",
    "deploy/test_setup.py",
    "integration/test_conflicts.py",
    "integration/test_demo.py",
    "integration/test_demo_mesh.py",
    "integration/test_demo_shards.py",
    "integration/test_many_tables.py",
    "integration/test_mesh.py",
    "integration/test_resharding.py",
    "simulation/test_active.py",
    "simulation/test_active_stateful.py",
    "simulation/test_active_unordered.py",
    "simulation/test_engine_mesh.py",
    "simulation/test_standstills_long.py",
    "simulation/test_versioned.py",
}
"""What takes minutes as a whole: explorers, set-ups, real processes. `make test-long`, which CI runs too."""
_MAY_BE_LONG = re.compile(r"\b(long|seeds|first)\b")
"""What a file says that has tests of both kinds."""
MEASURED = {
    "contract/test_metered_region.py",
    "contract/test_owed_keys.py",
    "contract/test_parked_operations.py",
    "contract/test_target_succession.py",
    "engine",
    "unit",
}
UNMEASURED = {
    "engine/test_late_targets.py",
    "engine/test_mesh_outages.py",
    "engine/test_sharing.py",
    "engine/test_worker.py",
}
"""Where coverage is counted, and where not. Counting more than doubles what a test of the engine costs, so what lives
through hours and many workers is left out, as are explorers: they prove nothing about single lines. Nor do tests that
throw dice: a line that only they reach is reached in most runs."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file of which the marks leave nothing; None: go by the usual rules."""
    marks = config.option.markexpr
    if collection_path.suffix != ".py" or marks not in {"long", "not long", "not long and not no_cover"}:
        return None
    path = collection_path.relative_to(Path(__file__).parent)
    if marks == "long":
        return None if path.as_posix() in LONG or _MAY_BE_LONG.search(collection_path.read_text()) else True
    is_left_out = path.as_posix() in LONG or ("no_cover" in marks and not _is_measured(path))
    return is_left_out or None


def _is_measured(path: Path) -> bool:
    """`path`: of a file, from here."""
    return bool(MEASURED.intersection({path.parts[0], path.as_posix()})) and path.as_posix() not in UNMEASURED


def pytest_collection() -> None:
    """What is imported and collected stays: the collector of garbage need not look through it meanwhile."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes minutes, and what is not counted."""
    root = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(root)
        if path.as_posix() in LONG:
            item.add_marker(pytest.mark.long)
        if not _is_measured(path) or is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.no_cover)


def pytest_configure() -> None:
    """Choose the profile for properties, and say that no event loop is set.

    pytest-asyncio asks for the current loop before every test; Python 3.11 answers with a new loop when none was ever
    set, nothing closes that one, and the warning about it strikes whichever test runs when it is collected.
    """
    settings.load_profile("replicator")
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniStack]:
    """A server that speaks DynamoDB and its streams, one per process of the test run.

    Its tables stay: a test has an account of its own, or names of its own.
    """
    with MiniStack.start(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture
async def virtual_time() -> None:
    """Let the test run in virtual time."""
    VirtualTime.start(asyncio.get_running_loop())


def pytest_collection_finish() -> None:
    """Nor again and again from now on."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Wait for the process that starts commands, so that what they cost is counted."""
    from tests.cli import warm

    warm.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the run cost: here, in the workers, and in all that they started and saw ending."""
    spent = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in spent)
    terminalreporter.write_line(f"{seconds / 60:.1f} CPU minutes")
