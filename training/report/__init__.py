"""What a run is worth: evaluation, parity of the engines, plots and the model card."""
