"""Recordings of events: what their columns are called and may hold, and one reader for each format of their files.

The service, training and the client read recordings by this room alone. It needs NumPy, and faery for the files that
event cameras write.
"""
