"""How the models of the gallery were made: `./scripts/gallery`."""
