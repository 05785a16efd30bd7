"""The HTTP service. It loads models from bundles only, and imports neither torch nor `training`."""
