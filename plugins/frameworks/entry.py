"""The user's own network: `package.module:factory`, called, with the weights of a file if there is one.

Nothing of a pickle is ever run. `.safetensors` holds tensors alone. What torch.save wrote is read by PyTorch's reader
for weights (`weights_only`), which knows tensors and plain containers. Training loops put other objects beside them,
such as Lightning's hyper-parameters or the accuracy as a NumPy scalar: nothing is made of them, and their classes are
neither imported nor called.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import sys
import sysconfig
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from traceback import extract_tb
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from spikeserve.models.spec.parameters import show
from spikeserve.training.errors import InvalidEntry
from spikeserve.training.files import memory, read_bytes, require_plain

StateDict = Mapping[str, Tensor]
SHOWN = 5  # keys in a sentence
MAX_REASON = 600  # characters of what PyTorch says of a file
MAX_MAP_BYTES = 2**24  # of a file of old and new keys; ten thousand of them have one
SAVE = "save the network's state_dict() by itself, with torch.save or safetensors"
DAMAGED = (
    *(SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError),
    *(AttributeError, IndexError, KeyError, TypeError, ValueError, AssertionError),  # a pickle that was tampered with
)


@dataclass(frozen=True)
class Weights:
    """A file of weights, and what is made of its keys.

    The state_dict is found among the file's dictionaries where there is only one; of several, each key begins with the
    place of its own, as in `ema.model.fc.weight`. `rename`: old and new keys, as JSON or the file that holds it; a `*`
    stands for any text, and a new key that is null leaves a key out. A prefix of all keys is found and taken off.
    """

    path: Path
    rename: str | None = None

    def load_into(self, network: nn.Module) -> None:
        """Give a network these weights; raises InvalidEntry with what does not fit."""
        named = select(read(self.path), self.path, several=self.rename is not None)
        if self.rename is not None:
            named = renamed(named, self.rename)
        own = network.state_dict()
        prefix = common_prefix(named, list(own))
        named = {key.removeprefix(prefix): tensor for key, tensor in named.items() if key.startswith(prefix)}
        # Membranes of sinabs are buffers, which are empty before the first run; those of the last one are no weights.
        named |= {key: empty for key, empty in own.items() if key in named and empty.shape == (0,)}
        try:
            network.load_state_dict(dict(named))
        except RuntimeError as error:
            reason = shorten(str(error), MAX_REASON, placeholder=" …")
            hint = ". A map of keys (--rename) can change names" if "Unexpected key" in reason else ""
            raise InvalidEntry(f"state-dict: '{self.path}' does not fit the network: {reason}{hint}") from error


class _PlaceholderType(type):
    """What calling a class that is not read gives: an instance that remembers nothing."""

    def __call__(cls, *_: object, **__: object) -> Any:
        return object.__new__(cls)  # type: ignore[arg-type]


class _Placeholder(metaclass=_PlaceholderType):
    """Stands for every class and function that a file names and PyTorch's reader does not know.

    An object that the file makes without calling its class may be a dictionary of the author's own, which the reader
    fills only where it is one of Python's.
    """

    def __new__(cls, *_: object) -> OrderedDict[str, object]:  # type: ignore[misc]
        """Return an empty dictionary."""
        return OrderedDict()

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


def read(path: Path) -> Mapping[Any, Any]:
    """Return a file's contents, without running code of a pickle; raises InvalidEntry."""
    unread: list[str] = []
    try:
        require_plain(path, memory())
        if path.suffix == ".safetensors":
            return load_file(path)
        unread = _other_classes(path)
        with safe_globals([(_Placeholder, name) for name in unread]):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InvalidEntry(f"state-dict: '{path}' cannot be read: {error.strerror or error}") from error
    except DAMAGED as error:
        raise InvalidEntry(f"state-dict: '{path}' cannot be read as tensors alone: {_reason(error)}; {SAVE}") from error
    if not isinstance(contents, Mapping):
        raise InvalidEntry(f"state-dict: '{path}' holds a {type(contents).__name__}, expected a dictionary of tensors")
    if unread and not contents:
        raise InvalidEntry(f"state-dict: '{path}' cannot be read as tensors alone: it holds {_some(unread)}; {SAVE}")
    return contents


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its class where it says nothing."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an author's own class
        lines = []
    return lines[0] if lines else type(error).__name__


def _reason(error: Exception) -> str:
    """Return why PyTorch's reader gives up: what the file holds, or the first line without its advice to trust it."""
    if match := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it holds '{match[1]}'"
    return first_line(error).partition(" This file can still be loaded")[0].removesuffix(".")


def _other_classes(path: Path) -> list[str]:
    """Return the names of the classes and functions in a file that are none of tensors and containers."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except DAMAGED:
        return []  # a file of an older form, or none of PyTorch at all, of which torch.load will say more


def select(contents: Mapping[Any, Any], path: Path, *, several: bool) -> StateDict:
    """Return the only state_dict in what a file holds, or of `several` all, each key behind the place of its own.

    Raises InvalidEntry where there is none, or too many.
    """
    if own := _tensors(contents):
        return own
    level: list[tuple[str, Mapping[Any, Any]]] = [("", contents)]
    seen = {id(contents)}
    while level:
        level = [(f"{place}{name}.", value) for place, part in level for name, value in _children(part, seen)]
        if choices := [(place[:-1], part) for place, part in level if _is_state_dict(part)]:
            break
    else:
        raise InvalidEntry(f"state-dict: '{path}' holds no tensors by name, but {_described(contents)}")
    if len(choices) == 1:
        return _tensors(choices[0][1])
    if several:
        return {f"{place}.{key}": tensor for place, part in choices for key, tensor in _tensors(part).items()}
    listed = ", ".join(f"'{place}' ({len(part)} tensors)" for place, part in choices)
    raise InvalidEntry(
        f"state-dict: '{path}' holds {len(choices)} dictionaries of tensors: {listed}; {_choose(choices[0][0] + '.')}"
    )


def _choose(prefix: str) -> str:
    return f"say which by --rename '{json.dumps({f'{prefix}*': '*', '*': None})}'"


def _children(part: Mapping[Any, Any], seen: set[int]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the dictionaries in a dictionary that are not in `seen`, and add them: one may hold itself."""
    for name, value in part.items():
        if isinstance(name, str) and isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _is_state_dict(part: Mapping[Any, Any]) -> bool:
    return len(part) > 0 and len(_tensors(part)) == len(part)


def _tensors(part: Mapping[Any, Any]) -> StateDict:
    return {name: value for name, value in part.items() if isinstance(name, str) and isinstance(value, Tensor)}


def common_prefix(named: StateDict, keys: Sequence[str]) -> str:
    """Return the prefix, such as `model.`, with which a file has every key of the network; "" where there is none.

    Raises InvalidEntry where there are several, as of weights and of their moving average.
    """
    if not keys or set(keys) <= named.keys():
        return ""
    starts = [key.removesuffix(keys[0]) for key in named if key.endswith(f".{keys[0]}")]
    fitting = [start for start in starts if all(start + key in named for key in keys)]
    if len(fitting) > 1:
        raise InvalidEntry(
            f"state-dict: all keys of the network are there under each of {_some(fitting)}; {_choose(fitting[0])}"
        )
    return fitting[0] if fitting else ""


def renamed(named: StateDict, text: str) -> StateDict:
    """Return the tensors under the keys that a map gives them: JSON, or the path of a file that holds it.

    It is an object, {"old": "new"}. A `*` in an old key stands for any text, which takes the place of the `*` in the
    new one: {"features.*": "conv.*"}. The first that fits a key counts. Raises InvalidEntry for a map that is not of
    this form, an old key that fits none, or two keys that get the same name.
    """
    try:
        rules = json.loads(text if text.lstrip().startswith("{") else read_bytes(Path(text), MAX_MAP_BYTES))
    except OSError as error:
        raise InvalidEntry(f"rename: '{text}' cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise InvalidEntry(f"rename: '{text}' is nested too deep, expected an object of old and new keys") from error
    except ValueError as error:
        raise InvalidEntry(f"rename: '{text}' is not JSON: {error}") from error
    if not isinstance(rules, dict):
        raise InvalidEntry(f"rename: '{text}' holds a {type(rules).__name__}, expected an object of old and new keys")
    for old, new in rules.items():
        stars = old.count("*")
        if stars > 1 or not (new is None or (isinstance(new, str) and new.count("*") == stars)):
            raise InvalidEntry(
                f"rename: '{old}' becomes {json.dumps(new)}, expected a key with as many * as there, at most one, or "
                "null"
            )
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    for key, tensor in named.items():
        fitting = ((old, new, match) for old, new in rules.items() if (match := _fits(key, old)))
        old, new, match = next(fitting, ("", key, None))
        if match and match.groups() and new:
            new = new.replace("*", match[1])
        used.add(old)
        if new in result:
            raise InvalidEntry(f"rename: two keys of the file become '{new}', the second of them '{key}'")
        if new is not None:
            result[new] = tensor
    if unused := [old for old in rules if old not in used]:
        raise InvalidEntry(f"rename: '{unused[0]}' fits no key of the file; the keys are {_some(list(named))}")
    return result


def _fits(key: str, old: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(old).replace(r"\*", "(.*)"), key, re.DOTALL)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more


def _described(contents: Mapping[Any, Any]) -> str:
    return ", ".join(f"'{name}' ({_kind(value)})" for name, value in list(contents.items())[:20]) or "nothing"


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        tensors = len(_tensors(value))
        return f"{tensors} tensors" if tensors else "a dictionary without tensors"
    return f"a tensor of {show(tuple(value.shape))}" if isinstance(value, Tensor) else type(value).__name__


NOT_THEIRS = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parent), "<")
HINTS = {  # what code for an older release of a framework runs into
    "spikingjelly.clock_driven": "since 0.0.0.0.13 its name is spikingjelly.activation_based, and what was "
    "MultiStepLIFNode(…) is LIFNode(…, step_mode='m') there",
    "spikingjelly.cext": "since 0.0.0.0.13 its neurons are in spikingjelly.activation_based.neuron, with step_mode='m'",
    "unexpected keyword argument 'backend'": "SpikingJelly 2 chooses its backend by itself: leave the argument "
    "out, or install the release that the code is for, from 0.0.0.0.14 on",
}


def load_network(entry: str, weights: Weights | Path | None = None) -> nn.Module:
    """Call a factory, and return its network in evaluation mode, with the weights of a file.

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
        raise InvalidEntry(f"entry: '{module_name}' cannot be imported: {_explained(error)}") from error
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise InvalidEntry(f"entry: '{module_name}' has no '{factory_name}'")
    try:
        network = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except (Exception, SystemExit) as error:
        raise InvalidEntry(f"entry: '{entry}' fails: {_explained(error)}") from error
    if not isinstance(network, nn.Module):
        raise InvalidEntry(f"entry: '{entry}' gives a {type(network).__name__}, expected an nn.Module")
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):  # the latter by torch.compile
            where = f"holds a compiled module at '{path}'" if path else "gives a compiled module"
            raise InvalidEntry(
                f"entry: '{entry}' {where} ({type(module).__name__}), whose code cannot be read: return the nn.Module "
                "that torch.jit.script, torch.jit.trace or torch.compile was given"
            )
        if ".quantized." in type(module).__module__:
            raise InvalidEntry(
                f"entry: '{entry}' has quantised weights at '{path}', expected the network of floats from before "
                "quantize_dynamic"
            )
    try:
        empty = [
            name for name, tensor in network.state_dict(keep_vars=True).items() if is_lazy(tensor) or tensor.is_meta
        ]
        network = network.eval()
    except Exception as error:  # also a module that holds itself
        raise InvalidEntry(f"entry: '{entry}' is no network that can be read: {_explained(error)}") from error
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


def _explained(error: BaseException) -> str:
    """Return an error of the author's code in one sentence, with its line, and what to do about an older framework."""
    reason = first_line(error)
    own = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_THEIRS)]
    where = f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""
    hints = [hint for text, hint in HINTS.items() if text in reason]
    return f"{where}{reason}" + "".join(f"; {hint}" for hint in hints[:1])
