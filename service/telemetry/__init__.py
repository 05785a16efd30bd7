"""Telemetry: metrics, logs and traces. It is told what happens, and asks nobody."""
