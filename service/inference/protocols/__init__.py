"""The protocols: how each decodes a request and renders its answer."""
