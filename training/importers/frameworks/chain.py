"""The order of a network's modules: from its containers, or proven by watching its own forward run.

A network that consists of containers (nn.Sequential and a framework's own) says its order. One with a forward of its
own does not, and the order in which its modules were made need not be the one in which they run. So it is run once on
random values, and it is a chain if each module was given exactly the tensor that the one before returned: the same
memory, unchanged since, flattened at most; and if each, stepped from rest on what it was given, returns the same again,
so that nothing else touches its state. Whatever else a forward does, a functional pool, a sum of branches or a scaling,
then shows, and is refused.
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

from models.spec.parameters import Shape, show
from training.errors import NotConvertible
from training.importers.frameworks.framework import Framework
from training.importers.frameworks.layer import has_hooks
from training.importers.frameworks.torch_modules import MODULES

BATCH = 3
MAX_STEPS = 5  # of the run that is watched; not as many as samples


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
class _Parts:
    """The modules of a network that compute, as far as anybody knows, and the user's own that hold some of them."""

    links: list[Link] = field(default_factory=list)
    own: list[Link] = field(default_factory=list)


def chain_of(network: nn.Module, framework: Framework, shape: Shape, time_steps: int) -> list[Link]:
    """Return the modules of a network in order; raises NotConvertible where it is no chain."""
    network = framework.unwrap(network)
    parts = _Parts()
    _collect(network, "", framework, parts)
    shared = [
        f"{link.path}: it is the same module as another's, and would share its state"
        for place, link in enumerate(parts.links)
        if type(link.module) not in MODULES and any(link.module is other.module for other in parts.links[:place])
    ]
    hooked = [
        f"{link.path}: it has a forward hook, which may change what it computes"
        for link in parts.links
        if has_hooks(link.module)
    ]
    if shared or hooked:
        raise NotConvertible.because(shared + hooked)
    return _watched(network, parts, framework, shape, time_steps) if parts.own else parts.links


def _collect(module: nn.Module, path: str, framework: Framework, parts: _Parts) -> None:
    kind = type(module)
    children = [(name, child) for name, child in module._modules.items() if child is not None]  # repeated ones too
    libraries = ("torch", framework.name)
    if kind not in framework.containers:
        if kind in framework.rules or not children or kind.__module__.partition(".")[0] in libraries:
            parts.links.append(Link(path, module))
            return
        parts.own.append(Link(path, module))
    for name, child in children:
        _collect(child, f"{path}.{name}" if path else name, framework, parts)


def _watched(network: nn.Module, parts: _Parts, framework: Framework, shape: Shape, time_steps: int) -> list[Link]:
    """Run a network that has a forward of its own, in each layout that it might take, and prove that it is a chain."""
    links = list({id(link.module): link for link in parts.links}.values())  # one hook for each module
    steps = MAX_STEPS if time_steps >= MAX_STEPS else 2
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((steps, BATCH, *shape), generator=generator)  # no two are the same
    layouts = {"one step": values[0], "time first": values, "batch first": values.transpose(0, 1).contiguous()}
    faults = []
    for layout, source in layouts.items():
        for link in links:  # from rest, whatever ran before
            _rest(link.module)
        try:
            calls = _record(network, links, parts.own, source)
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


def _record(network: nn.Module, links: list[Link], own: list[Link], source: Tensor) -> list[_Call]:
    """Run a network and return the calls of its modules; raises NotConvertible where a part of its own adds to them."""
    calls: list[_Call] = []

    def keep(link: Link) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
            first = _first(returned)
            calls.append(_Call(link, given[0], given[0]._version, first, first._version))

        return hook

    def require_passing(link: Link) -> Any:
        def hook(module: nn.Module, _: tuple[Any, ...], returned: Any) -> None:
            last = calls[-1] if calls else None
            first = _first(returned)
            if last is None or first.data_ptr() != last.returned.data_ptr() or first._version != last.version_after:
                raise NotConvertible(
                    f"'{link.path}' ({type(module).__name__}) returns something else than its last module gives it, "
                    "and no rule converts it"
                )

        return hook

    hooks = [(link, keep(link)) for link in links]
    hooks += [(link, require_passing(link)) for link in own if link.module is not network]
    with _hooked(hooks), torch.no_grad():
        network(source)
    return calls


def _first(returned: Any) -> Tensor:
    return returned[0] if isinstance(returned, tuple) else returned


@contextmanager
def _hooked(hooks: list[tuple[Link, Any]]) -> Iterator[None]:
    handles = [link.module.register_forward_hook(hook) for link, hook in hooks]
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
        if [call.link for call in one] != order:
            raise NotConvertible("its modules do not run in one order")
    for place, link in enumerate(order):
        if link in order[:place] and type(link.module) not in MODULES:
            raise NotConvertible(f"'{link.path}' runs more than once in a step, and would share its state")
    size = math.prod(shape)
    given = calls[0].given.numel()
    if source.dim() == 1 + len(shape) and len(passes) == 1 and given > source.numel() and given % source.numel() == 0:
        source = source.expand(given // source.numel(), *source.shape)  # it repeats its input over time by itself
    slices = _slices(source, len(passes), shape)
    chains = [
        _links(one, expected, expected.numel() // size, shape) for one, expected in zip(passes, slices, strict=True)
    ]
    _require_same(passes, source, framework, shape)
    return chains[0]


def _slices(source: Tensor, passes: int, shape: Shape) -> list[Tensor]:
    """Return what each pass should be given: all of the input, or a step of it."""
    if passes == 1 or source.dim() == 1 + len(shape):
        return [source] * passes
    steps = source.transpose(0, 1) if source.shape[0] == BATCH else source
    if len(steps) != passes:
        raise NotConvertible(f"it runs its modules {passes} times for {len(steps)} steps")
    return list(steps)


def _links(calls: list[_Call], expected: Tensor, whole: int, shape: Shape) -> list[Link]:
    """Follow one pass; `whole` is how many samples, and steps of them, go through it at a time."""
    given = calls[0].given
    if not torch.equal(given.reshape(-1), expected.reshape(-1)):
        raise NotConvertible(f"'{calls[0].link.path}' is not given the network's input")
    links = [Link(calls[0].link.path, calls[0].link.module, _flattened(shape, given, whole, "its input"))]
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
        flat = _flattened(_sample(out, whole), given, whole, f"what '{before.link.path}' returned")
        earlier = sum(call.link.module is link.module for link in links)
        path = f"{call.link.path}_{earlier + 1}" if earlier else call.link.path
        links.append(Link(path, call.link.module, flattens=flat))
    return links


def _sample(values: Tensor, whole: int) -> Shape:
    """Return the shape of one sample of what goes through at a time, `whole` samples in one leading axis or two."""
    leading = next((axes for axes in (1, 2) if math.prod(values.shape[:axes]) == whole), 1)
    return tuple(values.shape[leading:])


def _flattened(shape: Shape, given: Tensor, whole: int, what: str) -> bool:
    """Return whether samples of a shape are given flat; raises NotConvertible where they have another shape."""
    found = _sample(given, whole)
    if found not in (shape, (math.prod(shape),)):
        raise NotConvertible(f"{what} is reshaped from {show(shape)} to {show(found)}; only a sample may be flattened")
    return found != shape


def _require_same(passes: list[list[_Call]], source: Tensor, framework: Framework, shape: Shape) -> None:
    """Step each module from rest on what it was given, and compare with what it returned: its state is its own.

    A connection may round otherwise in a larger batch, so that values, unlike spikes, need only be close.
    """
    timed = source.dim() > 1 + len(shape)
    whole = timed and len(passes) == 1
    for calls in zip(*passes, strict=True):
        if type(calls[0].link.module) not in framework.rules:
            continue  # its class is refused later, with all others
        given = _over_time(calls[0].given, source) if whole else torch.stack([call.given for call in calls])
        returned = _over_time(calls[0].returned, source) if whole else torch.stack([call.returned for call in calls])
        with torch.no_grad():
            alone = framework.run(calls[0].link.module, given).output
        if alone.shape != returned.shape or not torch.allclose(alone, returned, rtol=1e-4, atol=1e-4):
            path = calls[0].link.path
            raise NotConvertible(f"'{path}' gives other values in the forward than when it is stepped from rest")


def _over_time(values: Tensor, source: Tensor) -> Tensor:
    """Return what a module took or gave as (time_steps, batch, *shape), whether those two axes were one or two."""
    leading = tuple(source.shape[:2])
    rest = values.shape[2:] if tuple(values.shape[:2]) == leading else values.shape[1:]
    split = values.reshape(*leading, *rest)
    return split.transpose(0, 1) if leading[0] == BATCH else split
