"""The catalog: which models and versions are served, and how a version is loaded."""
