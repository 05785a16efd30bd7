"""From the bytes of a body to arrays, within limits of bytes, seconds and memory."""
