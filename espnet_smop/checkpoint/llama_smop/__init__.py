"""Everything that imitates the public Llama-SMoP code: its checkpoints, names and settings."""
