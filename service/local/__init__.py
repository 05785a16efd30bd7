"""Answers in this process, without a server: what `spikeserve run` and `spikeserve batch` share."""
