"""The user's own network: `package.module:factory`, called, with the weights of a file if there is one."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path
from traceback import extract_tb

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from spikeserve.training.errors import InvalidEntry
from spikeserve.training.importers.frameworks.checkpoint import Weights, first_line

NOT_THEIRS = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parent), "<")
HINTS = {  # what code for an older release of a framework runs into
    "spikingjelly.clock_driven": "since 0.0.0.0.13 its name is spikingjelly.activation_based, and what was "
    "MultiStepLIFNode(…) is LIFNode(…, step_mode='m') there",
    "spikingjelly.cext": "since 0.0.0.0.13 its neurons are in spikingjelly.activation_based.neuron, with step_mode='m'",
    "unexpected keyword argument 'backend'": "SpikingJelly 2 chooses its backend by itself: leave the argument "
    "out, or install the release that the code is for, from 0.0.0.0.14 on",
}


def load_network(entry: str, weights: Weights | Path | None = None) -> nn.Module:
    """Return what a factory makes, in evaluation mode, with the weights of a file.

    The factory is the caller's own code, found from the current directory too. Raises InvalidEntry where it cannot be
    had, makes no nn.Module, or does not fit the file.
    """
    module_name, _, factory_name = entry.partition(":")
    if not module_name or not factory_name:
        raise InvalidEntry(f"entry: '{entry}' names no factory, expected package.module:factory")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the author's own code may raise anything
        raise InvalidEntry(f"entry: '{module_name}' cannot be imported: {_told(error)}") from error
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise InvalidEntry(f"entry: '{module_name}' has no '{factory_name}'")
    try:
        network = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except (Exception, SystemExit) as error:
        raise InvalidEntry(f"entry: '{entry}' fails: {_told(error)}") from error
    if not isinstance(network, nn.Module):
        raise InvalidEntry(f"entry: '{entry}' gives a {type(network).__name__}, expected an nn.Module")
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):  # the latter by torch.compile
            where = f"holds a compiled module at '{path}'" if path else "gives a compiled module"
            raise InvalidEntry(
                f"entry: '{entry}' {where} ({type(module).__name__}), whose code cannot be read: return the nn.Module "
                "that torch.jit.script, torch.jit.trace or torch.compile was given"
            )
    try:
        empty = [
            name for name, tensor in network.state_dict(keep_vars=True).items() if is_lazy(tensor) or tensor.is_meta
        ]
        network = network.eval()
    except Exception as error:  # also a module that holds itself
        raise InvalidEntry(f"entry: '{entry}' is no network that can be read: {_told(error)}") from error
    if empty:
        raise InvalidEntry(f"entry: '{entry}' has no values for '{empty[0]}', expected a network that has run once")
    if weights is not None:
        (Weights(weights) if isinstance(weights, Path) else weights).load_into(network)
    return _with_plain_weights(network).requires_grad_(False)


def _with_plain_weights(network: nn.Module) -> nn.Module:
    """Return a network whose weights are tensors, where they were computed at each call, as weight_norm does."""
    for path, module in network.named_modules():
        for name in list(getattr(module, "parametrizations", ())):
            one, other = getattr(module, name), getattr(module, name)
            if not torch.equal(one, other):
                raise InvalidEntry(
                    f"entry: '{path}.{name}' is computed otherwise each time it is read, expected a "
                    "parametrization that always gives the same"
                )
            parametrize.remove_parametrizations(module, name)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, WeightNorm | SpectralNorm):  # as torch.nn.utils.weight_norm did it before
                hook.remove(module)
                del module._forward_pre_hooks[key]
    return network


def _told(error: BaseException) -> str:
    """Return an error of the author's code in one sentence, with its line, and what to do about an older framework."""
    reason = first_line(error)
    own = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_THEIRS)]
    where = f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""
    hints = [hint for text, hint in HINTS.items() if text in reason]
    return f"{where}{reason}" + "".join(f"; {hint}" for hint in hints[:1])
