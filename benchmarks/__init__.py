"""Each claim of speed, printed by a script."""
