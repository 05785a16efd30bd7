"""The catalog: the registry of models and versions, and how a version is loaded."""
