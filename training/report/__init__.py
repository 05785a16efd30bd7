"""Reports on a run: evaluation, parity of the engines and the model card."""
