"""The Open Inference Protocol v2 over REST, beside the native routes: the same models, limits, threads and metrics."""
