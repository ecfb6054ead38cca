"""What every injected fault may use, and the count of those that were survived."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `fault_runs`, which processes import too

COUNTS = pytest.StashKey[dict[str, list[int]]]()


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Callable[[str], AbstractContextManager[None]]:
    """A context that counts one fault as tried, and as survived if all that is asserted within holds."""
    counts = request.config.stash.setdefault(COUNTS, {})

    @contextmanager
    def injected(name: str) -> Iterator[None]:
        count = counts.setdefault(name, [0, 0])
        count[0] += 1
        yield
        count[1] += 1

    return injected


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(COUNTS, {})
    if not counts:
        return
    terminalreporter.section("faults")
    for name, (tried, survived) in sorted(counts.items(), key=lambda item: int(item[0].split()[0])):
        terminalreporter.line(f"{name:<60} tried {tried:>3}   survived {survived:>3}   lost {tried - survived:>3}")
    tried, survived = (sum(column) for column in zip(*counts.values(), strict=True))
    terminalreporter.line(f"{'all':<60} tried {tried:>3}   survived {survived:>3}   lost {tried - survived:>3}")
