"""Scorings that a server runs: the same as ``gristmill score``, kept in a folder each, going on after a restart."""
