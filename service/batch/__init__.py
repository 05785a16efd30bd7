"""The command `spikeserve batch`: predictions of many files of samples, on Ray Data."""
