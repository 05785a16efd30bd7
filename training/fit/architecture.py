"""Network architectures as a line of text, in the notation of the field's papers: `32C3-BN-AP2-64C3-AP2-128R-DO0.2`.

    32C3       a 3×3 convolution with 32 channels, stride 1, padded to keep the size, and its neurons; over inputs of
               (channels, length) a convolution of 3 along the length
    32C3s2p1   with stride 2 and padding 1; d2 dilates, g4 makes groups
    AP2        an average pool over 2×2; MP2 the maximum, SP2 the sum; MP3s2 with stride 2
    128        a fully connected layer of 128 neurons (FC128 is the same); 128R is recurrent
    64T9d2     one of 64 neurons that also takes what arrived 2, 4, … and 16 steps ago: 9 taps at a distance of 2; a
               causal convolution over time
    128S16     a fully connected layer of 128 neurons, each of whose synapses learns a delay of 0 to 15 steps
    128Th      neurons without a memory, each of which fires where its current reaches the threshold; 64T9Th, 32C3Th
    BN         batch norm of the currents of the layer before
    DO0.2      dropout: each spike of the layer before is dropped with this probability, in training
    D16        delays of the layer before, or of the input: one for each neuron, learned, of at most 16 steps
    1000K      alone: 1000 random kernels over time whose rates the output layer reads; training/fit/kernels.py
    none       alone: no layer but the output layer

A layer may say what its neurons are: `128R:cubalif(decay=0.9,syn_decay=0.5)`, `64:lif(reset=value)`. The names are
those of the spec's neurons and fields. The output layer is added automatically: a fully connected layer with one output
for each class, and the neurons that the readout needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Input, Readout, Spec, nodes, validated
from spikeserve.models.spec.parameters import PER_NEURON, Shape
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.training.config import AUTHORS, KERNEL, NEURONS, START_DECAY, NetworkConfig
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.author import Author
from spikeserve.training.fit.losses import require_trainable

CONVOLUTION = re.compile(r"(?P<channels>\d+)C(?P<kernel>\d+)(?P<options>([spdg]\d+)*)")
POOL = re.compile(r"(?P<kind>[AMS])P(?P<size>\d+)(s(?P<stride>\d+))?")
DENSE = re.compile(
    r"(?:FC)?(?P<size>\d+)(T(?P<taps>[1-9]\d*)(d(?P<distance>[1-9]\d*))?|S(?P<delays>[1-9]\d*))?(?P<recurrent>R?)"
)
DROPOUT = re.compile(r"DO(?P<share>0?\.\d+|0)")
DELAY = re.compile(r"D(?P<longest>[1-9]\d*)")
LAYER = re.compile(r"(?P<shape>[^:]*?)(?P<neurons>Th|:(?P<neuron>\w+)(\((?P<fields>.*)\))?)?")
POOLS: dict[str, type[nodes.AvgPool2d | nodes.MaxPool2d | nodes.SumPool2d]] = {
    "A": nodes.AvgPool2d,
    "M": nodes.MaxPool2d,
    "S": nodes.SumPool2d,
}
MAX_DELAY = 1024
EXPECTED = (
    "32C3, 32C3s2p1, AP2, MP2, SP2, 128, 128R, 64T9d2, 128S16, 128Th, 128R:cubalif(syn_decay=0.5), BN, DO0.2 or D16; "
    "or alone 1000K, or none for no layer but the output's"
)
NONE = "none"
# Where an AdLIF's parameters start and stay, as those of Baronig et al. (2025) do: time constants from 60 to 300 steps,
# a from 0 to 1 and b from 0 to 2, both times 120. With a faster adaptation oscillations could grow.
ADLIF = {
    "adapt_decay": (math.exp(-1 / 60), math.exp(-1 / 300)),
    "adapt_coupling": (0.0, 120.0),
    "adapt_spike": (0.0, 240.0),
}
OF_NEURONS = ("decay", "syn_decay", "threshold", "adapt_decay", "adapt_gain", "fire", "reset")  # of the configuration


@dataclass(frozen=True)
class NodeTraining:
    """What only training knows of a node.

    `batch_norm`: whether a connection's currents are normalised over the batch. `dropout`: the probability that a spike
    of a neuron is dropped. `learned`: the parameters of a neuron that are trained, one value for the layer, or one for
    each neuron where the node says "per_neuron", each with the value that it starts with. `ranges`: where some of them
    stay, and are drawn from for each neuron. `spread`: the decays that start with another value for each neuron, which
    hangs on the sequence's length. `longest_delay`: of a Delay, or of the synapses of a Linear, that is learned, in
    steps; 0 where it is not.
    """

    batch_norm: bool = False
    dropout: float = 0.0
    learned: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    spread: frozenset[str] = frozenset()
    longest_delay: int = 0


PLAIN = NodeTraining()


@dataclass(frozen=True)
class Architecture:
    """A spec, and what only training knows of its nodes, by name.

    `used` has the fields of the configuration that made a difference to its neurons.
    """

    spec: Spec
    training: Mapping[str, NodeTraining] = field(default_factory=dict)
    used: frozenset[str] = frozenset()

    @property
    def learned(self) -> set[str]:
        """The parameters that some neuron learns."""
        return {name for node in self.training.values() for name in node.learned}


def build_architecture(
    config: NetworkConfig, declared: Input, labels: tuple[str, ...], time_steps: int, dt: float | None = None
) -> Architecture:
    """Return the network of `config` for an input and its classes; raises InvalidConfig for a layer that is none.

    `dt` is the seconds of a time step, where the data says it.
    """
    draft = _Draft(config, declared.arriving)
    what = f"architecture: '{config.architecture}'"
    try:
        spec = validated(InvalidConfig, f"{what} is no network", draft.spec, declared, labels, time_steps, dt)
    except InvalidSpec as error:
        raise InvalidConfig(f"{what} does not fit its input: {error}") from error
    try:
        Price.of(spec).check(LoadLimits())  # before any weight is made
    except InvalidSpec as error:
        raise InvalidConfig(f"{what} is too large to be served: {error}") from error
    return Architecture(spec, draft.training, frozenset(draft.used))


def dilations(time_steps: int) -> list[int]:
    """Return the distances of the taps of random kernels, powers of two: none reaches further than the sequence."""
    farthest = min(time_steps - 1, MAX_DELAY) // (KERNEL - 1)
    return [2**power for power in range(max(1, farthest.bit_length()))]


class _Draft:
    """A network on its way: its nodes, and what only training knows of them."""

    def __init__(self, config: NetworkConfig, shape: Shape) -> None:
        self.config = config
        self.shape = shape
        self.nodes: list[nodes.Node] = []
        self.training: dict[str, NodeTraining] = {}
        self.used: set[str] = set()
        own = {name: getattr(config, name) for name in OF_NEURONS}
        self.own = own | ({"decay": START_DECAY} if config.decay is None else {})

    def spec(self, declared: Input, labels: tuple[str, ...], time_steps: int, dt: float | None) -> Spec:
        """Add all layers, and return the whole network."""
        config = self.config
        if config.kernels:
            self.kernels(time_steps)
        elif config.architecture != NONE:
            # The dashes that are in no parentheses: a field may be 1e-3.
            for number, token in enumerate(re.split(r"-(?![^(]*\))", config.architecture), start=1):
                self.layer(token, number)
        self.output(len(labels))
        return Spec(
            input=declared,
            coding=config.coding,
            time_steps=time_steps,
            dt=dt,
            nodes=tuple(self.nodes),
            readout=config.readout,
            labels=labels,
        )

    def layer(self, token: str, number: int) -> None:
        """Add what one part of the text stands for."""
        match = LAYER.fullmatch(token)
        if match is None:
            raise self._no_layer(token)
        shape, neuron, fields = match["shape"], match["neuron"], match["fields"]
        if match["neurons"] == "Th":
            neuron = "threshold"
        if parts := CONVOLUTION.fullmatch(shape):
            self._add(self._convolution(parts, token, number))
            self._add(self._neuron(f"neuron{number}", neuron, fields, token))
        elif parts := DENSE.fullmatch(shape):
            distance, learned = int(parts["distance"] or 1), int(parts["delays"] or 0)
            end = _checked(distance * int(parts["taps"] or learned), token)
            self._dense(f"dense{number}", int(parts["size"]), range(0, end, distance), max(0, learned - 1))
            self._add(self._neuron(f"neuron{number}", neuron, fields, token, recurrent=bool(parts["recurrent"])))
        elif neuron is not None:
            raise self._no_layer(token)
        elif parts := POOL.fullmatch(shape):
            size, stride = int(parts["size"]), parts["stride"]
            kind = POOLS[parts["kind"]]
            hop = {"stride": (int(stride), int(stride))} if stride else {}
            self._add(kind(name=f"pool{number}", kernel_size=(size, size), **hop))
        elif parts := DROPOUT.fullmatch(shape):
            self._change(nodes.Spiking, "dropout", token, dropout=float(parts["share"]))
        elif parts := DELAY.fullmatch(shape):
            longest = _checked(int(parts["longest"]), token)
            self._add(nodes.Delay(name=f"delay{number}", delay=PER_NEURON), longest_delay=longest)
        elif shape == "BN":
            self._change(nodes.Weighted, "batch norm", token, batch_norm=True)
        else:
            raise self._no_layer(token)

    def kernels(self, time_steps: int) -> None:
        """Add random kernels, whose Linear reads the taps of all dilations."""
        config, token = self.config, self.config.architecture
        if not config.coding.per_step:
            raise InvalidConfig(f"coding: is '{config.coding}', but '{token}' is over time, expected current or spikes")
        if config.readout is not Readout.MEAN:
            raise InvalidConfig(f"readout: is '{config.readout}', but the rates of '{token}' are read by mean")
        taps = {tap * dilation for dilation in dilations(time_steps) for tap in range(KERNEL)}
        self._dense("kernels", config.kernels, sorted(taps))
        self._add(self._neuron("neuron", "threshold", None, token))

    def output(self, classes: int) -> None:
        """Add the output layer: a Linear, with neurons that fire for spikes and such that do not for membranes."""
        self._dense("classes", classes)
        config = self.config
        require_trainable(config.readout)
        if config.readout.of_spikes:
            self._add(self._neuron("output", None, None, "output"))
        if not config.readout.of_membrane:
            return
        self.used.add("neuron")
        cuba = config.neuron.startswith("Cuba")
        taken = {"decay", "syn_decay"} if cuba else {"decay"}
        fields = {"name": "output"} | {name: self.own[name] for name in taken}
        self._add(self._learning(nodes.CubaLI if cuba else nodes.LI, fields, taken))

    def _add(self, node: nodes.Node, **training: Any) -> None:
        self.nodes.append(node)
        self.shape = node.output_shape(self.shape)
        if training:
            self.training[node.name] = NodeTraining(**training)

    def _change(self, kind: Any, what: str, token: str, **training: Any) -> None:
        """Say more of the last node of a kind, which must be part of the layer just before."""
        last = next((node for node in self.nodes[-1:-3:-1] if isinstance(node, kind)), None)
        if last is None:
            raise InvalidConfig(f"architecture: '{token}' is {what} of the layer before, but there is none it fits")
        self.training[last.name] = NodeTraining(**{**vars(self.training.get(last.name, PLAIN)), **training})

    def _convolution(self, match: re.Match[str], token: str, number: int) -> nodes.Node:
        kernel = int(match["kernel"])
        options = {option[0]: int(option[1:]) for option in re.findall(r"[spdg]\d+", match["options"])}
        dilation = options.get("d", 1)
        if kernel % 2 == 0 and "p" not in options:
            raise InvalidConfig(
                f"architecture: '{token}' has a kernel of {kernel}, expected an odd one, to keep the size, "
                "or a padding, such as p1"
            )
        fields: dict[str, Any] = {
            "name": f"conv{number}",
            "in_channels": self.shape[0],
            "out_channels": int(match["channels"]),
            "kernel_size": kernel,
            "stride": options.get("s", 1),
            "padding": options.get("p", dilation * (kernel - 1) // 2),
            "dilation": dilation,
            "groups": options.get("g", 1),
        }
        if len(self.shape) == 2:
            return nodes.Conv1d(**fields)
        pairs = {name: (fields[name],) * 2 for name in ("kernel_size", "stride", "padding", "dilation")}
        return nodes.Conv2d(**{**fields, **pairs})

    def _dense(self, name: str, features: int, taps: Sequence[int] = (), longest: int = 0) -> None:
        if len(self.shape) > 1:
            self._add(nodes.Flatten(name=f"{name}_flatten"))
        if taps:
            self._add(nodes.Delay(name=f"{name}_taps", taps=tuple(taps)))
        training = {"longest_delay": longest} if longest else {}
        self._add(nodes.Linear(name=name, in_features=math.prod(self.shape), out_features=features), **training)

    def _neuron(
        self, name: str, neuron: str | None, text: str | None, token: str, *, recurrent: bool = False
    ) -> nodes.Node:
        word = neuron or self.config.neuron
        if neuron is None:
            self.used.add("neuron")
        if word in AUTHORS:
            return self._authors(name, word, text, token, recurrent=recurrent)
        if word.lower() not in NEURONS:
            known = ", ".join([*NEURONS, *AUTHORS])
            raise InvalidConfig(f"architecture: '{token}' names no neuron, expected {known}")
        kind = NEURONS[word.lower()]
        own = {field: value for field, value in self.own.items() if field in kind.model_fields}
        stated = _fields(text, token)
        ranges = {field: ends for field, ends in ADLIF.items() if kind is nodes.AdLIF and field not in stated}
        starts = {field: sum(ends) / 2 for field, ends in ranges.items()}
        fields: dict[str, Any] = {"name": name, **own, **starts, **stated}
        if recurrent:
            fields["recurrent"] = nodes.Recurrent()
        return self._learning(kind, fields, own.keys() - stated.keys(), ranges)

    def _authors(self, name: str, word: str, text: str | None, token: str, *, recurrent: bool) -> nodes.Node:
        """Return a neuron of a plugin as the program that its step is, which learns what its author says."""
        neuron = AUTHORS[word].load()
        author = Author(word, neuron.step)
        values = author.parameters(dict.fromkeys(neuron.learn, 0.0)) | author.parameters(_fields(text, token))
        for parameter, value in values.items():
            if not isinstance(value, float | int):
                raise InvalidConfig(f"architecture: '{token}' has {parameter}={value}, expected a number")
        program = author.written(neuron.states, values, "spikes")
        learned = {parameter: float(values[parameter]) for parameter in neuron.learn}
        if learned:
            self.training[name] = NodeTraining(learned=learned)
        if len(self.shape) == 1:
            values |= dict.fromkeys(learned, PER_NEURON)
        back = nodes.Recurrent() if recurrent else None
        fields = {"name": name, "program": program, "parameters": values, "recurrent": back}
        return nodes.ProgramNeuron.model_validate(fields)

    def _learning(
        self,
        kind: type[Any],
        fields: dict[str, Any],
        taken: Set[str],
        ranges: Mapping[str, tuple[float, float]] = PLAIN.ranges,
    ) -> Any:
        """Return a node whose learned parameters are one for each neuron; for a convolution, one for the layer.

        `taken` names the fields that the configuration gave; if it gave no decay, each neuron starts with decays of its
        own in place of those. The gain of each is for the initialisation to set, unless it is given.
        """
        learned: dict[str, float] = {name: float(fields[name]) for name in self.config.learn if name in fields}
        several = len(self.shape) == 1
        ranges = {name: ends for name, ends in ranges.items() if name in learned}
        differs = ({"decay", *learned} & taken & {"decay", "syn_decay", "adapt_decay"}) - ranges.keys()
        spread = frozenset(differs if several and self.config.decay is None else ())
        self.used |= taken
        if learned or spread:
            self.training[fields["name"]] = NodeTraining(learned=learned, ranges=ranges, spread=spread)
        each: dict[str, Any] = dict.fromkeys({*learned, *spread}, PER_NEURON) if several else {}
        gains = self.config.temporal and several and "decay" in fields
        if gains and kind is not nodes.AdLIF:  # whose decay already says how much charges it
            each["gain"] = fields.get("gain", PER_NEURON)
        return kind(**{**fields, **each})

    @staticmethod
    def _no_layer(token: str) -> InvalidConfig:
        return InvalidConfig(f"architecture: '{token}' is not a layer, expected one like {EXPECTED}")


def _checked(steps: int, token: str) -> int:
    """Return the steps of a delay if they are not too many."""
    if steps > MAX_DELAY:
        raise InvalidConfig(f"architecture: '{token}' is a delay of {steps} steps, expected at most {MAX_DELAY}")
    return steps


def _fields(text: str | None, token: str) -> dict[str, Any]:
    """Read a neuron's fields, as in decay=0.9,reset=value."""
    fields: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InvalidConfig(f"architecture: '{token}' has '{part}', expected a field as in decay=0.9")
        try:
            fields[name] = float(value)
        except ValueError:
            fields[name] = value
    return fields
