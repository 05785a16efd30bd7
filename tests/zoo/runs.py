"""How the author of a network runs it, and what of its output is the answer: nothing here knows of importers."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor], Tensor]  # inputs (time, batch, *shape) → what the network returns
Read = Callable[[Tensor], Tensor]  # what the network returns → (batch, classes)


def reset(network: nn.Module) -> None:
    """Bring every neuron to rest, by whatever its framework calls that."""
    for module in network.modules():
        for name in ("reset_mem", "reset_states", "reset"):
            if callable(method := getattr(module, name, None)) and hasattr(module, "forward"):
                method()
                break


def _first(returned: Any) -> Tensor:
    return returned[0] if isinstance(returned, tuple) else returned


def steps(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network whose states are hidden once a step: (batch, *shape) → (batch, classes)."""
    return torch.stack([_first(network(step)) for step in inputs])


def steps_with_state(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once a step, with the state that it gave at the step before, as Norse's are."""
    state, outputs = None, []
    for step in inputs:
        output, state = network(step, state)
        outputs.append(output)
    return torch.stack(outputs)


def time_first(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once, with (time, batch, *shape)."""
    return _first(network(inputs))


def batch_first(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once, with (batch, time, *shape)."""
    return _first(network(inputs.transpose(0, 1).contiguous()))


def batch_first_at_rest(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once, with (batch, time, *shape), where whatever it draws is 0."""
    with patch.object(torch, "rand", torch.zeros):
        return batch_first(network, inputs)


def batches_of_steps(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once, with (batch × time, *shape), as sinabs' squeezing layers want it."""
    output = network(inputs.transpose(0, 1).flatten(0, 1))
    return output.unflatten(0, (inputs.shape[1], inputs.shape[0])).transpose(0, 1)


def image(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once, with (batch, *shape): it repeats its image over time by itself."""
    return _first(network(inputs[0]))


def image_for_steps(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once, with (batch, *shape) and how many steps it is to run."""
    return _first(network(inputs[0], len(inputs)))


def actions(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network once, with (batch, time, *shape), for the actions of a policy."""
    return network(inputs.transpose(0, 1))["action"]


def total(output: Tensor) -> Tensor:
    """Sum spikes (time, batch, classes) over time."""
    return output.sum(0).flatten(1)


def total_batch_first(output: Tensor) -> Tensor:
    """Sum spikes (batch, time, classes) over time."""
    return output.sum(1).flatten(1)


def largest(output: Tensor) -> Tensor:
    return output.amax(0)


def last(output: Tensor) -> Tensor:
    return output[-1]


def mean(output: Tensor) -> Tensor:
    return output.mean(0)


def itself(output: Tensor) -> Tensor:
    return output
