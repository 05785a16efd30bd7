"""Straightforward servers of the same networks, as one writes them with a framework in an afternoon."""
