"""`python -m spikeserve.training` that draws no plots, which takes two seconds and is no subject of its tests."""

from __future__ import annotations

from spikeserve.training.__main__ import main
from spikeserve.training.fit import job

if __name__ == "__main__":
    vars(job).update(save_plots=lambda *_: None)
    main()
