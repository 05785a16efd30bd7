"""From a network to a bundle: golden samples, export, the next version in a repository."""
