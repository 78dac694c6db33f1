"""Compatibility with the public Llama-SMoP code: its checkpoints, names and settings."""
