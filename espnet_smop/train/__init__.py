"""Preprocessing, augmentation, noise and the trainer."""
