"""Words for whoever reads the standard output, who may leave."""

import os
import sys


def say(text: str) -> None:
    """Print at once; a reader who left, as that of `| head` does, is no error, and nothing more is printed to them."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
