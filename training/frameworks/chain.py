"""The order of a network's modules: from its containers, or proven by watching its own forward run.

A network that consists of containers (nn.Sequential and a framework's own) says its order. One with a forward of its
own does not, and the order in which its modules were made need not be the one in which they run. So it is run once on
random spikes, and it is a chain if each module was given exactly the tensor that the one before returned: the same
memory, unchanged since, flattened at most; and if stepping the modules in that order gives the same again. Whatever
else a forward does, a functional pool, a sum of branches or a scaling, then shows, and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.parameters import Shape, show
from training.frameworks.builder import has_hooks
from training.frameworks.errors import NotConvertible
from training.frameworks.framework import Framework

BATCH = 3
MOST_STEPS = 5  # of the run that is watched


@dataclass(frozen=True)
class Link:
    """A module of a chain with its path; `flattens` where the forward flattens what goes into it."""

    path: str
    module: nn.Module
    flattens: bool = False


@dataclass(frozen=True)
class _Call:
    """One call of a module; the tensors are kept, so that no other can take their place in memory."""

    link: Link
    given: Tensor
    version: int
    returned: Tensor
    version_after: int


@dataclass
class _Units:
    """The modules that a rule or nobody knows, and whether all that holds them is containers."""

    links: list[Link] = field(default_factory=list)
    contained: bool = True


def chain_of(network: nn.Module, framework: Framework, shape: Shape, time_steps: int) -> list[Link]:
    """Return the modules of a network in order; raises NotConvertible where it is no chain."""
    network = framework.unwrap(network)
    units = _Units()
    _collect(network, "", framework, units)
    hooked = [f"{link.path}: it has a forward hook, which may change what it computes" for link in units.links
              if has_hooks(link.module)]  # fmt: skip
    if hooked:
        raise NotConvertible.because(hooked)
    return units.links if units.contained else _watched(network, units.links, framework, shape, time_steps)


def _collect(module: nn.Module, path: str, framework: Framework, units: _Units) -> None:
    kind = type(module)
    children = list(module.named_children())
    if kind in framework.rules or (not children and kind not in framework.containers):
        units.links.append(Link(path, module))
        return
    units.contained = units.contained and kind in framework.containers
    for name, child in children:
        _collect(child, f"{path}.{name}" if path else name, framework, units)


def _watched(network: nn.Module, links: list[Link], framework: Framework, shape: Shape, time_steps: int) -> list[Link]:
    """Run a network that has a forward of its own, in each layout that it might take, and prove that it is a chain."""
    steps = min(MOST_STEPS, max(2, time_steps))
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand((steps, BATCH, *shape), generator=generator) < 0.5).float()
    layouts = {"one step": spikes[0], "time first": spikes, "batch first": spikes.transpose(0, 1).contiguous()}
    faults = []
    for layout, source in layouts.items():
        for link in links:  # from rest, whatever ran before
            _rest(link.module)
        try:
            calls = _record(network, links, source)
            return _proven(calls, source, framework, shape)
        except NotConvertible as error:
            faults.append(f"given {layout} of {show(tuple(source.shape))}: {error}")
        except Exception as error:  # the user's own code may raise anything
            reason = str(error).strip().splitlines() or [type(error).__name__]
            faults.append(f"given {layout} of {show(tuple(source.shape))}: its forward fails: {reason[0]}")
    raise NotConvertible(
        f"the network ({type(network).__name__}) has a forward of its own, which is not a plain chain of its modules; "
        "make it one, or nest it in nn.Sequential:\n  " + "\n  ".join(faults)
    )


def _rest(module: nn.Module) -> None:
    for name in ("reset_mem", "reset", "reset_states"):
        if callable(reset := getattr(module, name, None)):
            reset()


def _record(network: nn.Module, links: list[Link], source: Tensor) -> list[_Call]:
    calls: list[_Call] = []
    with _watching(links, calls), torch.no_grad():
        network(source)
    return calls


@contextmanager
def _watching(links: list[Link], calls: list[_Call]) -> Iterator[None]:
    def watch(link: Link) -> Any:
        def keep(_: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
            first = returned[0] if isinstance(returned, tuple) else returned
            calls.append(_Call(link, given[0], given[0]._version, first, first._version))

        return link.module.register_forward_hook(keep)

    handles = [watch(link) for link in links]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _proven(calls: list[_Call], source: Tensor, framework: Framework, shape: Shape) -> list[Link]:
    """Return the chain that the calls are, one pass or one for each step; raises NotConvertible by a sentence."""
    if not calls:
        raise NotConvertible("it calls none of its modules")
    first = calls[0].link
    starts = [place for place, call in enumerate(calls) if call.link is first]
    length = starts[1] if len(starts) > 1 else len(calls)
    passes = [calls[start : start + length] for start in range(0, len(calls), length)]
    order = [call.link for call in passes[0]]
    for one in passes:
        if [call.link for call in one] != order or len({link.path for link in order}) != len(order):
            raise NotConvertible("its modules do not run in one order, each once")
    whole = source.numel() // math.prod(shape) // (len(passes) if source.dim() > 1 + len(shape) else 1)
    chains = [_links(one, source, whole, shape) for one in passes]
    _require_same(passes, chains[0], source, framework, shape)
    return chains[0]


def _links(calls: list[_Call], source: Tensor, whole: int, shape: Shape) -> list[Link]:
    """Follow one pass; `whole` is how many samples, and steps of them, go through it at a time."""
    given = calls[0].given
    if given.untyped_storage().data_ptr() != source.untyped_storage().data_ptr() or (
        given.numel() != whole * math.prod(shape) or calls[0].version != source._version
    ):
        raise NotConvertible(f"'{calls[0].link.path}' is not given the network's input")
    links = [Link(calls[0].link.path, calls[0].link.module, flattens=_flattened(source, given, whole, shape))]
    for before, call in pairwise(calls):
        out, given = before.returned, call.given
        same = given.data_ptr() == out.data_ptr() and given.numel() == out.numel()
        if not same or not (given is out or (given.is_contiguous() and out.is_contiguous())):
            raise NotConvertible(
                f"'{call.link.path}' is not given what '{before.link.path}' returned: something comes between them "
                "that is no module, or they do not follow each other"
            )
        if call.version != before.version_after:
            raise NotConvertible(f"what '{before.link.path}' returned is changed before '{call.link.path}'")
        arriving = (out.numel() // whole,)
        flat = given.shape != out.shape
        if flat and (given.shape[-1:] != arriving or math.prod(given.shape[:-1]) != whole):
            raise NotConvertible(
                f"what '{before.link.path}' returned, {show(tuple(out.shape))}, is reshaped to "
                f"{show(tuple(given.shape))} before '{call.link.path}'; only a sample may be flattened"
            )
        links.append(Link(call.link.path, call.link.module, flattens=flat))
    return links


def _flattened(source: Tensor, given: Tensor, whole: int, shape: Shape) -> bool:
    if tuple(given.shape[-len(shape) :]) == shape:
        return False
    if given.shape[-1] == math.prod(shape) and math.prod(given.shape[:-1]) == whole:
        return True
    raise NotConvertible(f"its input {show(tuple(source.shape))} is reshaped to {show(tuple(given.shape))}")


def _require_same(
    passes: list[list[_Call]], links: list[Link], source: Tensor, framework: Framework, shape: Shape
) -> None:
    """Step the modules in order, from rest, and compare with what each gave in the forward."""
    timed = source.dim() > 1 + len(shape)
    batch_first = timed and source.shape[0] == BATCH
    steps = source.transpose(0, 1) if batch_first else source if timed else source.expand(len(passes), *source.shape)
    signal = steps
    for place, link in enumerate(links):
        with torch.no_grad():
            signal = framework.run(link.module, signal.flatten(2) if link.flattens else signal).output
        found = [one[place].returned for one in passes]
        seen = torch.stack(found) if len(found) > 1 or not timed else found[0]
        if batch_first and len(found) == 1:
            seen = seen.reshape(BATCH, -1, *signal.shape[2:]).transpose(0, 1)
        if not torch.equal(seen.reshape(signal.shape), signal):
            raise NotConvertible(f"'{link.path}' gives other values in the forward than when it is stepped by itself")
