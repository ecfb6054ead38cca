"""What must never be written down or sent away: values of keys that look like secrets, wherever they turn up."""

import os
import re
from typing import Any

BLANK = "(redacted)"
# A key of a metric, tokens of a text and a monkey are no secrets.
SECRET = re.compile(
    r"(?:^|[_.-])(?:secret|token|password|passwd|passphrase|credentials?)(?:$|[_.-])|[_-]key$|apikey", re.IGNORECASE
)
ASSIGNED = re.compile(
    r"""(?i)([\w.-]*(?:secret|token|password|passwd|credential|[_-]key|apikey)["']?\s*[:=]\s*)["']?[^\s"',]+["']?"""
)
USERINFO = re.compile(r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)")
SHORTEST = 8  # letters of a value that is looked for anywhere; shorter ones would blank what is none


def redact(node: Any) -> Any:
    """Plain containers with what looks like a secret blanked: by its key, or because the environment holds it as one."""
    return _redacted(node, _known())


def redacted(text: str) -> str:
    """The same of text, such as a command line or a diff, in which keys are assigned."""
    return ASSIGNED.sub(rf"\1{BLANK}", _blanked(text, _known()))


def _redacted(node: Any, known: list[str]) -> Any:
    if isinstance(node, dict):
        return {
            k: BLANK if SECRET.search(str(k)) and isinstance(v, str) else _redacted(v, known) for k, v in node.items()
        }
    if isinstance(node, list):
        return [_redacted(v, known) for v in node]
    return _blanked(node, known) if isinstance(node, str) else node


def _known() -> list[str]:
    """The secrets of the environment, the longest first, since one may hold another."""
    values = {v for k, v in os.environ.items() if SECRET.search(k) and len(v) >= SHORTEST}
    return sorted(values, key=len, reverse=True)


def _blanked(text: str, known: list[str]) -> str:
    for value in known:
        text = text.replace(value, BLANK)
    return USERINFO.sub(BLANK, text)
