"""Planning: what the rows of a batch share, and what that saves. Pure."""
