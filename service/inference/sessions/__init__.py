"""Sessions: a client sends events while they come, and gets a line for each window of time.

A session is a state that goes on: the network is not put to rest between windows. Where a run is cut changes no spike,
so a session answers as one long run would. It can be cut anywhere, and moved to another replica by its state.
"""
