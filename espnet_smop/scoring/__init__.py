"""Transcripts, alignment and sclite's tables."""
