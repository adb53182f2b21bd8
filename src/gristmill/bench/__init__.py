"""The ways to send a batch's rows side by side, on the user's own engine and rows.

``rows`` reads them, ``strategies`` are the ways, ``session`` asks the engine, ``measure`` alternates, ``drift`` and
``forecast`` and ``advice`` (all pure) say what the measurements mean, ``receipt`` and ``page`` write them down.
"""
