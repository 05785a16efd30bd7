"""Train on digits in a loop of your own, and publish the network as a bundle.

pip install '.[train]'
python examples/train_digits.py repository      # then: spikeserve serve --repository repository
"""

from __future__ import annotations

import sys

if len(sys.argv) != 2:
    sys.exit(__doc__)  # before what may not be installed


import torch
from sklearn.datasets import load_digits
from torch import nn

from spikeserve.training.library import LIF, publish, spike_loss

STEPS, EPOCHS = 8, 4

torch.manual_seed(0)
images, classes = load_digits(return_X_y=True)  # 8×8 pixels from 0 to 16
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(classes)
test = torch.arange(len(x)) % 5 == 0
network = nn.Sequential(nn.Linear(64, 128), LIF(128, decay=0.75), nn.Linear(128, 10), LIF(10, decay=0.75))
optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
for epoch in range(EPOCHS):
    for batch in torch.randperm(int((~test).sum())).split(64):
        current = x[~test][batch].expand(STEPS, -1, -1)  # (time_steps, batch, inputs)
        loss = spike_loss(network(current), y[~test][batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}")
published = publish(network, sys.argv[1], "my-digits", (x[test], y[test]), coding="direct", time_steps=STEPS)
print(f"published {published.name} version {published.version}")
