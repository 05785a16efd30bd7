"""The user's own network: `package.module:factory`, called, with the weights of a file if there is one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from torch import nn

from training.errors import InvalidEntry
from training.importers.frameworks.checkpoint import Weights


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
        factory = getattr(importlib.import_module(module_name), factory_name)
    except ImportError as error:
        raise InvalidEntry(f"entry: '{module_name}' cannot be imported: {error}") from error
    except AttributeError as error:
        raise InvalidEntry(f"entry: '{module_name}' has no '{factory_name}'") from error
    network = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    if not isinstance(network, nn.Module):
        raise InvalidEntry(f"entry: '{entry}' gives a {type(network).__name__}, expected an nn.Module")
    if weights is not None:
        (Weights(weights) if isinstance(weights, Path) else weights).load_into(network)
    return network.eval().requires_grad_(False)
