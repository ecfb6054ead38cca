"""A reader who leaves."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["genlab.cli", "genlab.compare", "genlab.data.__main__"])
def test_a_reader_who_left_is_no_error(module: str) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    program = f"import sys; sys.argv = ['genlab', '--help']; from {module} import main; main(); main()"
    done = subprocess.run([sys.executable, "-c", program], check=False, stdout=ours, stderr=subprocess.PIPE, text=True)
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, "")
