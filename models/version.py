"""The version of Spikeserve, which bundles and the OpenAPI document name."""

VERSION = "0.5.0"
