"""The one exception that reaches a person as a single line."""


class GenlabError(Exception):
    """Something the user can mend: the message names the thing and the remedy, and no traceback follows."""
