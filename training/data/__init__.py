"""Data sets, their splits, augmentation, and random samples for networks that come without data."""
