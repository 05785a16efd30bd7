"""Ordinary requests: short bodies of which only the numbers differ, answered together."""
