"""Network architectures as a line of text, in the notation of the field's papers: `32C3-AP2-64C3-AP2-128`.

    32C3   a 3×3 convolution with 32 channels, stride 1, padded to keep the size, and its neurons
    AP2    an average pool over 2×2; MP2 the maximum, SP2 the sum
    128    a fully connected layer of 128 neurons (FC128 is the same); 128R is recurrent

The output layer, with one neuron for each class, is added automatically.
"""

from __future__ import annotations

import math
import re

from pydantic import ValidationError

from models.errors import InvalidSpec
from models.spec import Input, Readout, Spec, describe_first_error
from models.spec.nodes import (
    IF,
    LI,
    LIF,
    AvgPool2d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Flatten,
    Integrating,
    Linear,
    MaxPool2d,
    Node,
    Recurrent,
    Spiking,
    SumPool2d,
)
from models.spec.parameters import Shape
from training.config import NetworkConfig
from training.errors import InvalidConfig

CONVOLUTION = re.compile(r"(\d+)C(\d+)")
POOL = re.compile(r"([AMS])P(\d+)")
DENSE = re.compile(r"(?:FC)?(\d+)(R?)")
POOLS: dict[str, type[AvgPool2d | MaxPool2d | SumPool2d]] = {"A": AvgPool2d, "M": MaxPool2d, "S": SumPool2d}


def build_spec(config: NetworkConfig, declared: Input, labels: tuple[str, ...], time_steps: int) -> Spec:
    """Return the spec of `config` for an input and its classes; raises InvalidConfig for a layer that does not fit."""
    nodes: list[Node] = []
    shape = declared.shape
    layers = [token for token in config.architecture.split("-") if token]
    try:
        for number, token in enumerate(layers, start=1):
            for node in _layer(token, number, shape, config):
                nodes.append(node)
                shape = node.output_shape(shape)
        nodes += _output(shape, len(labels), config)
        return Spec(
            input=declared,
            coding=config.coding,
            time_steps=time_steps,
            nodes=tuple(nodes),
            readout=config.readout,
            labels=labels,
        )
    except InvalidSpec as error:
        raise InvalidConfig(f"architecture: '{config.architecture}' does not fit its input: {error}") from error
    except ValidationError as error:
        raise InvalidConfig(
            f"architecture: '{config.architecture}' is no network: {describe_first_error(error)}"
        ) from error


def _layer(token: str, number: int, shape: Shape, config: NetworkConfig) -> list[Node]:
    if match := CONVOLUTION.fullmatch(token):
        channels, kernel = map(int, match.groups())
        if kernel % 2 == 0:
            raise InvalidConfig(
                f"architecture: '{token}' has a kernel of {kernel}, expected an odd one, to keep the size"
            )
        conv = Conv2d(
            name=f"conv{number}",
            in_channels=shape[0],
            out_channels=channels,
            kernel_size=(kernel, kernel),
            padding=(kernel // 2, kernel // 2),
        )
        return [conv, _neuron(f"neuron{number}", config)]
    if match := POOL.fullmatch(token):
        size = int(match[2])
        return [POOLS[match[1]](name=f"pool{number}", kernel_size=(size, size))]
    if match := DENSE.fullmatch(token):
        neuron = _neuron(f"neuron{number}", config, recurrent=bool(match[2]))
        return [*_dense(f"dense{number}", shape, int(match[1])), neuron]
    raise InvalidConfig(f"architecture: '{token}' is not a layer, expected one like 32C3, AP2, MP2, SP2, 128 or 128R")


def _dense(name: str, shape: Shape, features: int) -> list[Node]:
    flatten: list[Node] = [Flatten(name=f"{name}_flatten")] if len(shape) > 1 else []
    return [*flatten, Linear(name=name, in_features=math.prod(shape), out_features=features)]


def _neuron(name: str, config: NetworkConfig, *, recurrent: bool = False) -> Spiking:
    fields = {
        "name": name,
        "threshold": config.threshold,
        "fire": config.fire,
        "reset": config.reset,
        "recurrent": Recurrent() if recurrent else None,
    }
    match config.neuron:
        case "IF":
            return IF(**fields)
        case "LIF":
            return LIF(decay=config.decay, **fields)
        case "CubaLIF":
            return CubaLIF(decay=config.decay, syn_decay=config.syn_decay, **fields)


def _readout(name: str, config: NetworkConfig) -> Integrating:
    if config.neuron == "CubaLIF":
        return CubaLI(name=name, decay=config.decay, syn_decay=config.syn_decay)
    return LI(name=name, decay=config.decay)


def _output(shape: Shape, classes: int, config: NetworkConfig) -> list[Node]:
    last = _neuron if config.readout is Readout.SPIKE_COUNT else _readout
    return [*_dense("classes", shape, classes), last("output", config)]
