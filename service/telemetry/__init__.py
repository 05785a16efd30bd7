"""Telemetry: metrics, logs and traces. Other packages call it; it calls none of them."""
