"""Scoring: a table and a rubric in, scores out. An ordinary batch underneath, so it resumes and runs on any engine."""
