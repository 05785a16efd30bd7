"""The HTTP service. It knows models only as bundles, and imports neither torch nor `training`."""
