"""Errors that a user can act on: one line, no traceback, a documented exit code."""


class UserError(Exception):
    """Something the user asked for is impossible; the message is one line that names the key and what is allowed."""

    exit_code = 2


class DesignError(UserError, ValueError):
    """A design, a step or a set of changes that does not exist or does not fit together."""
