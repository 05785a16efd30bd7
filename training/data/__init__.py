"""Data sets, their splits, augmentation, and random samples for imported networks without data."""
