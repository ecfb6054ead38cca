"""Run by test_ranks.py, and again by Lightning for the second rank: genlab train, with what $FAULT does to it."""

import os
import sys

exec(os.environ.get("FAULT", ""), {"rank": int(os.environ.get("LOCAL_RANK", "0"))})  # noqa: S102 - the words of the test

from genlab.train import main

if __name__ == "__main__":
    sys.exit(main())
