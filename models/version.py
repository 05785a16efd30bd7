"""The version of this tool, as bundles and the service's OpenAPI document name it."""

VERSION = "0.1.0"
