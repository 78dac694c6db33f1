"""Audio-visual speech recognition with large language models, as an ESPnet extension."""

__version__ = "0.1.0"
