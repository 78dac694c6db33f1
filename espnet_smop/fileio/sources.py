"""What a formatted data directory holds of each modality, as ESPnet's datasets take it."""

SOURCES = {"audio": ("wav.scp", "speech", "sound"), "video": ("video.scp", "video", "video")}
"""Modality → (file in the directory, name of the data, ESPnet's type of the file)."""
