"""Bundles and states that each release wrote, which every later one of its major version has to read."""
