"""Recordings as the files of event cameras, read in a process of their own."""
