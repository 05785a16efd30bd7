"""Bring a network of snnTorch, and verify that the bundle spikes as snnTorch does.

pip install '.[train,peers]'
python examples/import_snntorch.py repository      # then: spikeserve serve --repository repository
"""

import sys

if __name__ == "__main__" and len(sys.argv) != 2:
    sys.exit(__doc__)  # before what may not be installed

import subprocess
from pathlib import Path

import snntorch
import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Two layers of leaky neurons; put yours in its place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # the same weights each time; load yours here
        self.fc1, self.fc2 = nn.Linear(64, 32), nn.Linear(32, 10)
        self.leaky1, self.leaky2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output spikes of each step, (time_steps, batch, 10); `x` is (time_steps, batch, 64)."""
        first, second, spikes = self.leaky1.reset_mem(), self.leaky2.reset_mem(), []
        for current in self.fc1(x):
            hidden, first = self.leaky1(current, first)
            output, second = self.leaky2(self.fc2(hidden), second)
            spikes.append(output)
        return torch.stack(spikes)


if __name__ == "__main__":
    entry, repository = "import_snntorch:Net", Path(sys.argv[1]).resolve()  # module:factory of your own code
    shape = f"--input-shape 64 --time-steps 20 --repository {repository} --name mine"
    for words in (f"import snntorch {entry} {shape}", f"verify {repository}/mine/1 --against snntorch:{entry}"):
        subprocess.run([sys.executable, "-m", "spikeserve", *words.split()], cwd=Path(__file__).parent, check=True)
