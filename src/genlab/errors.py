"""The one exception that reaches a person as a single line, and what makes any text fit for one."""


def printable(value: object) -> str:
    """Text on one line without control characters, which could drive the terminal that shows what a stranger wrote."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


class GenlabError(Exception):
    """Something the user can mend: the message names the thing and the remedy, and no traceback follows."""

    def __str__(self) -> str:
        return printable(super().__str__())
