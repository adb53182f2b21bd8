"""Prefixes kept on disk, so that the engine's next process reads them instead of computing them.

``shared_prefixes`` decides which are worth it, ``prefix_keeper`` writes and reads between the steps of one engine;
``prefix_file``, ``prefix_folder`` and ``prefix_store`` are the files, shared by all models and processes.
``kv_transfer`` is what a library must give for it, ``kept_prefixes`` what people see.
"""
