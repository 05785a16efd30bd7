"""The importer `lava`: a network of lava-dl in Loihi's arithmetic."""

from __future__ import annotations

from pathlib import Path

from spikeserve.models.spec import Coding
from spikeserve.plugins.nir.lava.convert import convert
from spikeserve.plugins.nir.lava.file import read
from spikeserve.training.importers.options import ImportedNetwork, Options, flag


class LavaOptions(Options):
    """The options of a file of lava-dl."""

    time_steps: int | None = flag("Steps per sample.", "what the file says, or 100")
    coding: Coding | None = flag("How a sample becomes steps.", "direct for neurons at the input, else spikes")
    latency: bool = flag(
        "Each connection takes a step, as in Lava without a reset_interval.", "a spike arrives in its own step", False
    )


class LavaImporter:
    """Takes in a network of lava-dl, in the whole numbers that Loihi computes with."""

    options = LavaOptions
    source = "The .net file that lava-dl wrote."
    checked = ()

    def convert(self, source: str, options: LavaOptions) -> ImportedNetwork:
        """Return the network of a file; raises InvalidGraph or InvalidSpec."""
        path, latency = Path(source), options.latency
        file = read(path)
        options = options.model_copy(update={"time_steps": options.time_steps or file.time_steps})
        network = convert(file.layers, options, latency=latency)
        facts = {
            "File": f"{path.name}, SHA-256 `{file.sha256}`",
            "Arithmetic": "Loihi's, on whole numbers of 24 bits",
            "Latency": "a step for each connection"
            if latency
            else "none: a spike arrives in the step in which it leaves",
        }
        origin = f"A network of lava-dl: {network.spec.classes} outputs, {network.parameter_count} parameters"
        return ImportedNetwork(network, origin, facts)


IMPORTER = LavaImporter()
