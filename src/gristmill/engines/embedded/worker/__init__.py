"""The model's own process and the pipe to it.

``process``, its ``heartbeat`` and ``supervision`` are the server's side, ``worker`` the other; ``frames`` is what goes
between.
"""
