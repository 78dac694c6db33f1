"""Audio-visual speech recognition with large language models, as an ESPnet extension."""

import os
import sys

# `python -m` looks in the working directory first, where a user's queue.py would replace Python's.
# `class_path` looks there last.
if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()]:
    sys.path.append(sys.path.pop(0))

import espnet_smop.espnet_import  # before any module of ESPnet  # noqa: F401

__version__ = "0.1.0"
