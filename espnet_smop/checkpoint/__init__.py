"""Import, export and packing of trained models."""
