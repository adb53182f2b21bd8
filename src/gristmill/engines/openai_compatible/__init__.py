"""Servers that speak OpenAI's API: vLLM, SGLang, llama.cpp's, LM Studio, another Gristmill; one or several as a pool.

``translation``, ``answers``, ``failures``, ``health`` and ``routing`` are pure; ``probe`` finds out what a server can
do, ``endpoint`` talks to one, ``engine`` is the pool.
"""
