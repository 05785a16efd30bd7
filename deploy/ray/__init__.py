"""Spikeserve on Ray: served by Ray Serve (`serving`), and trained by Ray Train (`train`)."""
