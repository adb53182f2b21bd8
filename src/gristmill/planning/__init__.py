"""Planning: what the rows of a batch share, and in which order they run. Pure; today rows run in input order."""
