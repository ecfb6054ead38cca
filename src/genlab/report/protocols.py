"""Protocols compared: whether two numbers may stand in one column without a word."""

import json
from collections import Counter
from typing import Any

from genlab.comparable import MACHINE, OWN
from genlab.errors import printable
from genlab.report.records import Measurement, flat

TIMINGS = {"ms_per_sample", "train_images_per_second"}


def usual_protocol(measurements: list[Measurement]) -> dict[str, Any]:
    """The compared fields that most of a column's numbers share, the first of equals."""
    fields = [compared(m) for m in measurements]
    keys = [json.dumps(each, sort_keys=True) for each in fields]
    return fields[keys.index(Counter(keys).most_common(1)[0][0])]


def compared(measurement: Measurement) -> dict[str, Any]:
    """The fields of a number's protocol that must agree between models."""
    ignored = OWN if measurement.metric in TIMINGS else OWN | MACHINE
    return flat({key: value for key, value in measurement.protocol.items() if key not in ignored})


def difference(fields: dict[str, Any], usual: dict[str, Any], other: str) -> str:
    """A footnote that names the fields in which two protocols differ; empty where they agree."""
    differ = [key for key in dict.fromkeys((*usual, *fields)) if fields.get(key) != usual.get(key)]
    return ", ".join(f"{key} {_text(fields.get(key))} ({other} {_text(usual.get(key))})" for key in differ)


def _text(value: object) -> str:
    """A protocol field in a footnote; of a checksum the first digits will do."""
    text = printable(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))
    return text if len(text) < 64 else f"{text[:12]}…"
