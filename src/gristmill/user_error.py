"""An error a person meets: one clear sentence with what to do. The command line prints it and exits with its code."""

from __future__ import annotations


class UserError(Exception):
    #: As of a command line that cannot be understood.
    exit_code = 2


class NotNow(UserError):
    """What was asked for may be right, and what it needs is not there now: it is worth another try, as it is. What a
    person has to mend here, such as a setting or a key that is wrong, is none."""
