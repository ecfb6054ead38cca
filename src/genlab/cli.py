"""The `genlab` command: picks the verb, imports nothing heavy."""

import difflib
import os
import sys

from genlab import __version__
from genlab.printing import say

VERBS = {
    "train": "one run: genlab train experiment=digits/ddpm",
    "sweep": "many runs, then their comparison: genlab sweep digits",
    "evaluate": "score a run again: genlab evaluate RUN sampler.steps=50",
    "sample": "draw from a run: genlab sample RUN n=64",
    "compare": "tables, figures and a page of runs: genlab compare RUN...",
    "rerun": "the same configuration once more, and whether it comes out the same: genlab rerun RUN",
    "export": "weights as safetensors: genlab export RUN",
    "data": "the data sets: genlab data list",
}


def usage() -> str:
    verbs = "\n".join(f"  {name:<10}{text}" for name, text in VERBS.items())
    return f"usage: genlab VERB [key=value ...]\n\n{verbs}\n\ngenlab VERB --help says more; version {__version__}."


def main() -> None:
    """Replace this process by `python -m genlab.VERB`, so that sys.argv is what a launcher of ranks may repeat."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        say(usage())
        return
    if arguments[0] == "--version":
        say(__version__)
        return
    verb = arguments[0]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" - did you mean {close[0]}?" if close else ""
        print(f"genlab: no verb {verb!r}{hint}; there is {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    os.execv(sys.executable, [sys.executable, "-m", f"genlab.{verb}", *arguments[1:]])
