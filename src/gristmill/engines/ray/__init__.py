"""A pool of engines on a Ray cluster, each in an actor of its own.

``engine`` is what the rest sees; ``pool`` places requests on replicas (``placement`` decides) and sends them in groups
through ``driver_process``; that is our end of a child process, ``driver``, which is Ray's client, since Ray may end it
when the cluster's head is lost. A ``keeper`` in it looks after one ``actor`` on the cluster, which holds an engine.
"""
