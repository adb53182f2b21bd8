"""Ranking: the best K rows of a table, or all above a cut, without judging every row, and what that promises."""
