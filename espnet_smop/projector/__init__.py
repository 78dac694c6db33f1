"""From encoder features to LLM tokens: downsampling, fusion and sparse mixtures of projectors."""
