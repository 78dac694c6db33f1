"""Pretraining of the small base models of this recipe: a Llama, a Whisper and an AV-HuBERT."""
