"""The demo page as a Space of the Hugging Face hub."""

import os

from espnet_smop.bin.demo import main

# A Space is accessed from outside its container.
main([os.environ["MODEL"], "--host", "0.0.0.0", "--port", "7860"])
