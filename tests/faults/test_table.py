"""docs/reliability.md names 24 faults, and tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_fault_has_its_tests() -> None:
    lines = (TESTS.parent / "docs" / "reliability.md").read_text().splitlines()
    rows = {int(found[1]): line for line in lines if (found := re.match(r"\| (\d+) \|", line))}
    assert sorted(rows) == [*range(1, 25)]
    for line in rows.values():
        named = re.findall(r"`(\S+\.py)::(\w+)`", line)
        assert named
        for file, test in named:
            assert f"def {test}(" in (TESTS / file).read_text(), (file, test)


def test_every_test_of_faults_is_named() -> None:
    text = (TESTS.parent / "docs" / "reliability.md").read_text()
    for file in (TESTS / "faults").glob("test_*.py"):
        if file != Path(__file__):
            for test in re.findall(r"def (test_\w+)\(", file.read_text()):
                assert f"`faults/{file.name}::{test}`" in text, test
