"""Networks of other frameworks, taken in module by module: each framework's own file says what it computes."""

from spikeserve.models.door import Plugin

NEEDS = (("torch", "typer"), "train")
NAMES = ("snntorch", "spikingjelly", "norse", "sinabs", "torch", "spikeserve")

PLUGINS = (
    *(
        Plugin(
            "importer",
            name,
            ".spikeserve:IMPORTER" if name == "spikeserve" else f".commands:{name}",
            f"Publish a {name} network as the next version of a model",
            ("torch",) if name in ("torch", "spikeserve") else ("torch", name),
            "train" if name in ("torch", "spikeserve") else "",
        )
        for name in NAMES
    ),
    Plugin("command", "convert", ".conversion.commands:main", "make a trained network without spikes spike", *NEEDS),
)
