"""The statistics of scores: arrays in, structs out. Pure; they need the extra ``score``."""
