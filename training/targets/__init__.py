"""What a bundle becomes outside of the server."""
