"""The doctor: is a server reachable, alive, reusing prefixes, large enough; each finding passes or says what to do."""
