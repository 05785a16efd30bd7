"""The server process: command line, server, connections, and the supervisor of several workers."""
