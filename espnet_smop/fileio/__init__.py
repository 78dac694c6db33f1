"""Readers and writers of the data types that ESPnet lacks."""
