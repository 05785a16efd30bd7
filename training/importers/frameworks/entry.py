"""The user's own network: `package.module:factory`, called, with a state_dict if there is one."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import InvalidEntry


def load_network(entry: str, state_dict: Path | None) -> nn.Module:
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
    if state_dict:
        try:
            network.load_state_dict(_read(state_dict))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InvalidEntry(f"state-dict: '{state_dict}' does not fit the network: {reason}") from error
    return network.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    """Read a state_dict without running what a pickle may hold."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidEntry(f"state-dict: '{path}' cannot be read as tensors alone: {reason}") from error
    if not isinstance(tensors, dict):
        raise InvalidEntry(f"state-dict: '{path}' holds a {type(tensors).__name__}, expected a dictionary of tensors")
    return tensors
