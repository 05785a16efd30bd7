"""`python -m spikeserve.training` that draws no plots, which takes two seconds and is no subject of its tests.

Behind the word `then` stands another command, which the same processes run: to start one takes ten seconds of a core.
"""

import sys

from spikeserve.training.__main__ import main
from spikeserve.training.commands import fit

if __name__ == "__main__":
    vars(fit).update(draw=lambda _: None)
    program, *words = sys.argv
    end = words.index("then")
    for command in (words[:end], words[end + 1 :]):
        sys.argv = [program, *command]
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                raise
