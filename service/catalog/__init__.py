"""The catalog: which models and versions are served, and how one is loaded."""
