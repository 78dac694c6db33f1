"""Fusion of several encoder layers."""

FUSIONS = {}
