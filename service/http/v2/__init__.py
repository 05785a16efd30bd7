"""The routes of the Open Inference Protocol v2; they share models, limits, threads and metrics with the native API."""
