"""Audio-visual speech recognition with large language models, as an ESPnet extension."""

import espnet_smop.espnet_import  # before any module of ESPnet  # noqa: F401

__version__ = "0.1.0"
