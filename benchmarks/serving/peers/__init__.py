"""The others, each a program that serves a bundle's weights on a port of the loopback."""
