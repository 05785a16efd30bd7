"""Middleware: API keys, browser origins, request ids and logs, and tracing."""
