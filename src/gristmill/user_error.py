"""An error a person meets: one clear sentence with what to do. The command line prints it and exits with 2."""

from __future__ import annotations


class UserError(Exception):
    pass
