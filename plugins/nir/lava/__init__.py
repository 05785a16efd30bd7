"""Networks of Lava: the `.net` files that lava-dl writes."""
