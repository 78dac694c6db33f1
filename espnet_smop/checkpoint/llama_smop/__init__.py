"""The public Llama-SMoP code's checkpoints, names and settings: all that imitates that code."""
