"""Answers in this process, without a server: `spikeserve run`, and what `spikeserve batch` shares with it."""
