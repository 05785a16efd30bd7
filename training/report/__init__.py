"""Reports on a run: evaluation, parity of the engines, plots and the model card."""
