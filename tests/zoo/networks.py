"""The table of the zoo: each network, how it is imported and run, and which are refused."""

from functools import partial
from typing import Any

from spikeserve.models.spec import Coding
from tests.zoo import runs
from tests.zoo.registry import Entry

DIRECT, CURRENT = Coding.DIRECT, Coding.CURRENT

STEPS: Any = {"run": runs.steps, "read": runs.total}
TIME_FIRST: Any = {"run": runs.time_first, "read": runs.total}
BATCH_FIRST: Any = {"run": runs.batch_first, "read": runs.total_batch_first}
SQUEEZED: Any = {"run": runs.batches_of_steps, "read": runs.total}
MEMBRANE: Any = {"run": runs.steps_with_state, "read": runs.largest}
LARGEST: Any = {"run": runs.time_first, "read": runs.largest}
VOTES: Any = {"run": runs.time_first, "read": runs.mean}
READ: Any = {"run": runs.time_first, "read": runs.itself}
SHOWN: Any = {"run": runs.image, "read": runs.itself, "coding": DIRECT}
REST: Any = {"start": "rest", "run": runs.batch_first_at_rest}
IMAGE: Any = {"run": runs.image, "read": runs.total, "coding": DIRECT}

snntorch = partial(Entry, framework="snntorch", module="tests.zoo.snntorch_tutorials")
spikingjelly = partial(Entry, framework="spikingjelly", module="tests.zoo.spikingjelly_examples")
papers = partial(Entry, framework="spikingjelly", module="tests.zoo.spikingjelly_projects")
norse = partial(Entry, framework="norse", module="tests.zoo.norse_examples")
sinabs = partial(Entry, framework="sinabs", module="tests.zoo.sinabs_examples")
own = partial(Entry, framework="torch", module="tests.zoo.own_neurons")
nir = partial(Entry, framework="nir", module="tests.zoo.nir_files")

NETWORKS = (
    snntorch("snntorch-3-feedforward", "feedforward", (36,), 20, **TIME_FIRST,
        names=("fc1", "lif1", "fc2", "lif2"), options={"labels": "a,b,c,d,e"}),
    snntorch("snntorch-6-sequential", "convolutional_sequential", (1, 14, 14), 10, **STEPS),
    snntorch("snntorch-rleaky-conv", "recurrent_convolutional", (1, 6, 6), 8, **TIME_FIRST),
    snntorch("snntorch-bntt", "batch_norm_through_time", (20,), 6, **IMAGE),
    snntorch("snntorch-exoplanet", "exoplanet", (40,), 1, coding=CURRENT, run=runs.image, read=runs.itself,
        options={"readout": "last"}),
    snntorch("snntorch-policy", "policy", (6,), 8, coding=CURRENT, run=runs.actions, read=runs.itself,
        options={"low": "-2", "high": "2"}, answer="action"),
    snntorch("snntorch-rate-coded", "rate_coded", (16,), 10, coding=Coding.RATE,
        refusal="torch.bernoulli draws at random"),
    snntorch("neurobench-primate-reaching", "primate_reaching", (24,), 10, run=runs.time_first, read=runs.last,
        options={"readout": "last_membrane", "scores": "values"}),
    spikingjelly("spikingjelly-lif-fc-mnist", "lif_fc_mnist", (1, 8, 8), 20, **STEPS),
    spikingjelly("spikingjelly-rsnn-feedback", "rows_feedback", (12,), 12, coding=CURRENT, **READ),
    spikingjelly("spikingjelly-ann2snn", "converted_ann", (1, 8, 8), 10, coding=DIRECT, run=runs.steps,
        read=runs.mean, options={"readout": "mean"}),
    spikingjelly("spikingjelly-cuba", "current_based", (12,), 10, **READ),
    spikingjelly("spikingjelly-fashion-mnist-net", "fashion_mnist_net", (1, 28, 28), 4, coding=DIRECT,
        run=runs.steps, read=runs.mean),
    spikingjelly("spikingjelly-sew-resnet18", "sew_resnet18", (3, 16, 16), 4, coding=DIRECT, **VOTES,
        options={"readout": "mean"}),
    spikingjelly("spikingjelly-qkformer", "small_qkformer", (3, 32, 32), 2, **SHOWN),
    papers("spikingjelly-tokens", "tokens", (2, 8, 8), 4, **READ),
    papers("spikingjelly-gated", "gated", (2, 6, 6), 6, **TIME_FIRST),
    papers("spikingjelly-up-and-down", "up_and_down", (1, 8, 8), 6, **STEPS),
    papers("spikingjelly-own-defaults", "own_defaults", (2, 6, 6), 8, **TIME_FIRST),
    papers("spikingjelly-membranes", "membranes", (12,), 8, **READ),
    papers("spikingjelly-norms-over-time", "norms_over_time", (2, 6, 6), 6, **TIME_FIRST),
    norse("norse-intro", "intro", (3, 8, 8), 12, coding=DIRECT, run=runs.steps_with_state, read=runs.last,
        options={"readout": "last"}),
    norse("norse-vgg", "vgg_features", (3, 8, 8), 8, **VOTES, options={"readout": "mean"}),
    norse("norse-encoded", "encoded", (12,), 10, **SHOWN, options={"readout": "last_membrane"}),
    sinabs("sinabs-quickstart", "quickstart", (16,), 20, **BATCH_FIRST),
    sinabs("sinabs-weight-transfer-spiking", "weight_transfer_spiking", (1, 14, 14), 10, batch=4, **SQUEEZED),
    sinabs("sinabs-skip", "skip_connection", (2, 9, 9), 8, batch=4, **SQUEEZED),
    own("own-clamped-recurrent", "clamped_recurrent", (12,), 10, **REST, read=runs.total_batch_first),
    own("own-clamped-readout", "clamped_readout", (12,), 12, **REST, read=runs.itself,
        refusal="torch.Tensor.add adds up probabilities of each step, and a readout makes them once"),
    own("own-balanced-resonators", "balanced_resonators", (12,), 12, **LARGEST),
    own("own-dendritic", "dendritic", (12,), 16, run=runs.batch_first, read=runs.itself),
    own("own-integer", "integer", (12,), 8, coding=CURRENT, **READ),
    own("own-rectified", "rectified", (2, 8), 12, coding=CURRENT, **STEPS),
    own("own-shown", "shown", (1, 8, 8), 4, coding=DIRECT, run=runs.image_for_steps, read=runs.itself),
    own("own-kept", "kept", (12,), 6, **SHOWN),
    nir("nir-from-snntorch-recurrent", "from_snntorch_recurrent", (12,), 20, **STEPS,
        layers="snntorch_recurrent_layers", names=("node_0", "node_1_lif", "node_2", "node_3"),
        options={"dialect": "snntorch", "dt": "0.0001", "reset": "subtract", "reset-timing": "next_step"}),
    nir("nir-from-norse", "from_norse", (12,), 20, layers="norse_layers", **MEMBRANE,
        options={"dialect": "norse", "dt": "1e-6", "reset": "zero"}),
    nir("nir-from-sinabs", "from_sinabs", (1, 6, 6), 10, layers="sinabs_layers", **SQUEEZED,
        options={"dialect": "sinabs", "dt": "1", "reset": "subtract"}),
    nir("nir-from-spikingjelly", "from_spikingjelly", (12,), 20, **STEPS, layers="spikingjelly_layers",
        options={"dialect": "spikingjelly", "dt": "0.0001", "reset": "zero"}),
    nir("nir-paper-cnn", "paper_cnn", (2, 12, 12), 30, options={"dialect": "norse", "dt": "0.0001", "reset": "zero"}),
)  # fmt: skip
