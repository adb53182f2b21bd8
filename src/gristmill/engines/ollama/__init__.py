"""The ollama engine: drives an Ollama server through its native API (`/api/chat`, `/api/generate`).

The rest of Gristmill imports ``engine``; ``gristmill bench`` imports ``measured``. Pure: ``settings`` (what the user
chose), ``facts`` (what the server says of itself and the model), ``translation`` with ``structured`` (request in),
``answers`` and ``failures`` (answer out), ``reloads`` and ``prefix_warmup`` (what the rows show). I/O: ``client``,
``residency``, ``load_watch``, ``engine``. ``wire`` is every JSON shape.

Facts about the protocol are from Ollama's source (v0.33) and from recordings of a real server, which the tests replay.
"""
