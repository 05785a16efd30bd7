"""`python -m spikeserve.training`: fit a network, evaluate it, export it as a bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spikeserve.models.errors import InvalidInput

try:
    from spikeserve.training.commands.groups import at, group
    from spikeserve.training.commands.sentences import run
except InvalidInput as error:  # of a plugin
    sys.exit(f"error: {error}")

# Where each command is, in `commands`.
COMMANDS = {
    **{"fit": "fit:fit", "evaluate": "runs:evaluate_run", "export": "groups:exports", "import": "imports:imports"},
    **{"verify": "verify:app", "calibrate": "bundles:calibrate_model", "quantise": "bundles:quantise"},
    "check": "imports:checks",
}
app = group(lambda: COMMANDS, lambda name: at(COMMANDS[name]), __doc__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default that of this process, and exit; a user's mistake is one sentence."""
    run(app, arguments)


if __name__ == "__main__":
    main()
