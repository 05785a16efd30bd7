"""Dialect `spyx`: files of Spyx's own export give the spikes of Spyx's own import, on values whose sums are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.training.errors import InvalidGraph, InvalidRules
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.nir.convert import Conversion, convert
from spikeserve.training.importers.nir.rules import DialectName, GraphReset, Rules
from tests.nir_graphs import converted, full, integrate_and_fire, lif, read_here, stack

RULES = Rules(DialectName.SPYX, 1.0, GraphReset.SUBTRACT)
STEPS, BATCH = 60, 100


def cuba(*shape: int) -> Any:
    return nir.CubaLIF(full(2, *shape), full(4, *shape), full(1, *shape), full(0, *shape), full(1, *shape))


@pytest.mark.parametrize(
    ("node", "fields", "after"),
    [
        # dt is 1, so that a tau of 4 steps is a decay of 3/4; its r, which Spyx's export makes the decay, is not read.
        (lif(1, tau=4, r=0.75), {"decay": 0.75, "reset_timing": "next_step"}, ["Delay", "Threshold"]),
        (integrate_and_fire(1), {"reset_timing": "next_step"}, ["Delay", "Threshold"]),
        # It takes the threshold off before the membrane decays, which is a reset right after the spike.
        (cuba(1), {"decay": 0.75, "syn_decay": 0.5}, ["Delay", "Threshold"]),
        (nir.Threshold(full(2, 1)), {"threshold": 2.0}, []),
    ],
)
def test_a_neuron_that_decides_before_it_charges_is_one_with_a_delay(
    tmp_path: Path, node: Any, fields: dict[str, Any], after: list[str]
) -> None:
    first, *others = converted(tmp_path, stack((1,), (1,), n=node), RULES).network.spec.nodes
    found = first.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    assert found == fields | {"fire": "above_threshold"}
    assert [other.type for other in others] == after


def test_a_leaky_integrator_and_its_threshold_are_one_neuron_without_reset(tmp_path: Path) -> None:
    leaky = nir.LI(full(2, 1), full(1, 1), full(0, 1))
    graph = stack(
        (1,), (1,), leaky=leaky, fires=nir.Threshold(full(0.5, 1)), fc=nir.Linear(np.ones((1, 1))), end=lif(1)
    )
    first = converted(tmp_path, graph, RULES).network.spec.nodes[0]
    assert first.model_dump(mode="json", exclude_defaults=True) == {
        "name": "leaky", "decay": 0.5, "threshold": 0.5, "fire": "above_threshold", "reset": "none",
    }  # fmt: skip


@pytest.mark.parametrize("reset", [GraphReset.ZERO, GraphReset.VALUE])
def test_a_reset_that_spyx_does_not_have_is_refused(tmp_path: Path, reset: GraphReset) -> None:
    with pytest.raises(InvalidRules, match=f"reset is '{reset}', but dialect 'spyx' has only 'subtract' and 'none'"):
        converted(tmp_path, stack((1,), (1,), n=lif(1)), Rules(DialectName.SPYX, 1.0, reset))


def pooled(padding: int) -> Any:
    pool = nir.SumPool2d(np.array([2, 2]), np.array([1, 1]), np.array([padding, padding]))
    size = 4 + padding - 1
    flat = nir.Flatten({"input": np.array([1, size, size])}, 0, -1)
    return stack((1, 4, 4), (size**2,), pool=pool, flat=flat, end=lif(size**2))


def test_a_pool_whose_padding_has_no_half_is_refused(tmp_path: Path) -> None:
    pool: Any = converted(tmp_path, pooled(2), RULES).network.spec.nodes[0]
    assert pool.padding == (1, 1)
    with pytest.raises(InvalidGraph, match="node 'pool': pads 1×1, in all, which is not the same on both sides"):
        converted(tmp_path, pooled(1), RULES)


def test_what_follows_a_flatten_of_channels_last_has_to_be_a_linear(tmp_path: Path) -> None:
    flat = nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1)
    with pytest.raises(
        InvalidGraph, match="node 'end': follows a Flatten of 2×2×2, which dialect 'spyx' counts channels"
    ):
        converted(tmp_path, stack((2, 2, 2), (8,), flat=flat, end=lif(8)), RULES)


def spyx_and_rngs() -> tuple[Any, Any, Any]:
    reason = "Spyx is not installed: ./scripts/install bench"
    pytest.importorskip("jax", reason=reason)
    spyx = pytest.importorskip("spyx", reason=reason)
    from flax import nnx

    return spyx, nnx, nnx.Rngs(0)


def sixteenths(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return (rng.integers(-8, 17, shape) / 16).astype(np.float32)


def made_exact(network: Any, nnx: Any, rng: np.random.Generator) -> Any:
    """Give every weight a multiple of 1/16, and every decay one of those that dt / (1 - decay) gives back exactly."""
    for path, variable in nnx.to_flat_state(nnx.state(network)):
        decay = path[-1] in ("beta", "alpha")
        drawn = rng.choice([0.0, 0.5, 0.75], variable.shape) if decay else sixteenths(rng, *variable.shape)
        variable[...] = np.asarray(drawn, np.float32)
    return network


def networks(spyx: Any, nnx: Any, rngs: Any) -> dict[str, tuple[Any, tuple[int, ...], int]]:
    """Return each kind of network, the shape that it takes as NIR counts it, and how many values it gives."""
    nn = spyx.nn

    def two(first: Any, second: Any, *between: Any) -> Any:
        return nn.Sequential(nnx.Linear(12, 24, rngs=rngs), first, *between, nnx.Linear(24, 8, rngs=rngs), second)

    convolutional = nn.Sequential(
        nnx.Conv(2, 3, (3, 3), padding="VALID", rngs=rngs), nn.LIF((6, 6, 3), threshold=2.0, rngs=rngs),
        nn.SumPool((2, 2), (2, 2), "VALID"), nn.Flatten(), nnx.Linear(27, 8, rngs=rngs), nn.IF((8,)),
    )  # fmt: skip
    return {
        "LIF": (two(nn.LIF((24,), rngs=rngs), nn.LIF((8,), beta=0.5, threshold=0.5, rngs=rngs)), (12,), 8),
        "IF": (two(nn.IF((24,)), nn.IF((8,), threshold=2)), (12,), 8),
        "CuBaLIF": (two(nn.CuBaLIF((24,), rngs=rngs), nn.CuBaLIF((8,), rngs=rngs)), (12,), 8),
        "RIF": (two(nn.RIF((24,), rngs=rngs), nn.RIF((8,), rngs=rngs)), (12,), 8),
        "RLIF": (two(nn.RLIF((24,), rngs=rngs), nn.LIF((8,), rngs=rngs)), (12,), 8),
        "RCuBaLIF": (two(nn.RCuBaLIF((24,), rngs=rngs), nn.RCuBaLIF((8,), rngs=rngs)), (12,), 8),
        "PSU_LIF": (two(nn.PSU_LIF((24,), rngs=rngs), nn.LIF((8,), rngs=rngs)), (12,), 8),
        "Conv": (convolutional, (2, 8, 8), 8),
    }


KINDS = ("LIF", "IF", "CuBaLIF", "RIF", "RLIF", "RCuBaLIF", "PSU_LIF", "Conv")


def exported(folder: Path, kind: str, seed: int) -> tuple[Any, Any, tuple[int, ...]]:
    """Return Spyx's graph of a network as its file gives it back, the network, and the shape of its input."""
    spyx, nnx, rngs = spyx_and_rngs()
    from spyx import nir as spyx_nir

    network, shape, outputs = networks(spyx, nnx, rngs)[kind]
    made_exact(network, nnx, np.random.default_rng(seed))
    graph = spyx_nir.to_nir(network, {"input": np.array(shape)}, {"output": np.array([outputs])}, dt=1)
    nir.write(folder / "spyx.nir", graph)
    return nir.read(folder / "spyx.nir"), network, shape


def channels_last(steps: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.moveaxis(steps, 2, -1) if steps.ndim == 5 else steps


def theirs(network: Any, steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the spikes (time_steps, batch, outputs) of Spyx's own network."""
    from spyx.nn import run

    return np.asarray(run(network, channels_last(steps))[0])


def ours(conversion: Conversion, steps: NDArray[np.float32]) -> NDArray[Any]:
    network = conversion.network
    result, _ = ReferenceEngine(network).run(DenseInputs(steps, len(steps)), record=Record.RASTER)
    return result.rasters[network.spec.nodes[-1].name]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_are_those_of_spyx(tmp_path: Path, kind: str) -> None:
    _, network, shape = exported(tmp_path, kind, seed=0)
    conversion = convert(read_here(tmp_path / "spyx.nir").graph, RULES, Options())
    rng = np.random.default_rng(0)
    steps = (rng.random((STEPS, BATCH, *shape)) < 0.3).astype(np.float32)
    expected = theirs(network, steps)
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(ours(conversion, steps), expected)
    mended = "what enters it besides 'layer_1.layer_1.lif' is taken to enter" in " ".join(conversion.warnings)
    assert mended == kind.startswith("R")


@pytest.mark.filterwarnings("ignore")
def test_a_file_gives_what_spyx_makes_of_it(tmp_path: Path) -> None:
    graph, _, _ = exported(tmp_path, "LIF", 5)
    from spyx import nir as spyx_nir

    steps = (np.random.default_rng(1).random((STEPS, 16, 12)) < 0.3).astype(np.float32)
    _, expected = spyx_nir.from_nir(graph, steps, dt=1)
    np.testing.assert_array_equal(
        ours(convert(read_here(tmp_path / "spyx.nir").graph, RULES, Options()), steps), np.asarray(expected)
    )
