"""vLLM in a process of our own: for replicas on Ray, and for one machine.

``engine`` is what the rest sees; ``server`` is the process, which ``launch`` starts so that it ends with ours. What is
asked of it goes through the openai_compatible engine, by a Unix socket: vLLM's AsyncLLM changes with its versions, and
its server's command line and answers hardly do.
"""
