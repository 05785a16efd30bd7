"""The gallery: the commands that list models, and copy them here or elsewhere."""

from spikeserve.models.door import Plugin

_NEEDS = (("pydantic",), "serve")
PLUGINS = (
    Plugin("command", "models", ".commands:models", "list the models that ship, or those of a repository", *_NEEDS),
    Plugin("command", "pull", ".commands:pulling", "copy a model of `models` to a repository here", *_NEEDS),
    Plugin(
        "command", "push", ".commands:pushing", "copy a bundle to a repository elsewhere, such as a bucket", *_NEEDS
    ),
)
