"""Which way is up: "lower", "higher" or "closer to <value>"."""

import math


def badness(value: float, better: str | None) -> float:
    """Smaller is better, whatever the metric; nan where nothing says which way is up."""
    return {"lower": value, "higher": -value}.get(better or "", abs(value - target(better)))


def target(better: str | None) -> float:
    """The value that "closer to <value>" names, else nan."""
    try:
        return float((better or "").removeprefix("closer to "))
    except ValueError:
        return math.nan
