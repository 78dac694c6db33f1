"""The experiments of a paper: their configs, checks without weights or data, and tables."""
