"""A bundle as one C99 file."""
