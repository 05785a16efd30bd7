"""Trained networks without spikes as spiking ones: what they are as nodes, their calibration, and the command."""
