"""What a data directory holds of each modality, as ESPnet's datasets take it, at which rates."""

SOURCES = {"audio": ("wav.scp", "speech", "sound"), "video": ("video.scp", "video", "video")}
"""Modality → (file in the directory, name of the data, ESPnet's type of the file)."""
SAMPLE_RATE = 16000
"""Samples per second of all audio here."""
FRAME_RATE = 25
"""Frames per second of all video here; AV-HuBERT's rate and LRS3's own."""
