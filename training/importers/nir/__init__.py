"""NIR files in and out: read and mended, put under a named dialect, published; and written such that they come back."""
