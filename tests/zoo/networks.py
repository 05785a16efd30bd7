"""The table of the zoo: each network, how it is imported and run, and which are refused."""

from typing import Any

from spikeserve.models.spec import Coding
from tests.zoo import (
    nir_files,
    norse_examples,
    own_neurons,
    runs,
    sinabs_examples,
    snntorch_tutorials,
    spikingjelly_examples,
    spikingjelly_projects,
)
from tests.zoo.registry import Entry

DIRECT, CURRENT = Coding.DIRECT, Coding.CURRENT

STEPS: Any = {"run": runs.steps, "read": runs.total}
WITH_STATE: Any = {"run": runs.steps_with_state, "read": runs.total}
TIME_FIRST: Any = {"run": runs.time_first, "read": runs.total}
BATCH_FIRST: Any = {"run": runs.batch_first, "read": runs.total_batch_first}
SQUEEZED: Any = {"run": runs.batches_of_steps, "read": runs.total}
MEMBRANE: Any = {"run": runs.steps_with_state, "read": runs.largest}
LARGEST: Any = {"run": runs.time_first, "read": runs.largest}
VOTES: Any = {"run": runs.time_first, "read": runs.mean}
IMAGE: Any = {"run": runs.image, "read": runs.total, "coding": DIRECT}

tutorials, projects, bench = snntorch_tutorials, snntorch_tutorials, snntorch_tutorials
examples, zoo, papers = spikingjelly_examples, spikingjelly_examples, spikingjelly_projects
norse, sinabs, own = norse_examples, sinabs_examples, own_neurons

SNNTORCH = [
    Entry("snntorch-3-feedforward", "snntorch", tutorials.feedforward, (36,), 20, **TIME_FIRST),
    Entry("snntorch-6-fixed-batch", "snntorch", tutorials.convolutional_fixed_batch, (1, 14,
          14), 8, batch=4, **TIME_FIRST),
    Entry("snntorch-6-sequential", "snntorch", tutorials.convolutional_sequential, (1, 14, 14), 10, **STEPS),
    Entry("snntorch-2-lapicque", "snntorch", tutorials.lapicque, (20,), 20, **STEPS),
    Entry("snntorch-rleaky-conv", "snntorch", tutorials.recurrent_convolutional, (1, 6, 6), 8, **TIME_FIRST),
    Entry("snntorch-bntt", "snntorch", tutorials.batch_norm_through_time, (20,), 6, **IMAGE),
    Entry("snntorch-alpha", "snntorch", tutorials.alpha, (20,), 10, **TIME_FIRST),
    Entry("snntorch-exoplanet", "snntorch", tutorials.exoplanet, (40,), 1,
          coding=CURRENT, run=runs.image, read=runs.itself, options={"readout": "last"}),
    Entry("snntorch-autoencoder", "snntorch", tutorials.autoencoder, (1, 8, 8), 6, **TIME_FIRST),
    Entry("snntorch-policy", "snntorch", projects.policy, (6,), 8, coding=CURRENT, run=runs.actions, read=runs.itself,
          options={"low": "-2", "high": "2"}, answer="action"),
    Entry("snntorch-rate-coded", "snntorch", projects.rate_coded, (16,), 10, coding=Coding.RATE,
          refusal="torch.bernoulli draws at random"),
]  # fmt: skip

NEUROBENCH = [
    Entry("neurobench-primate-reaching", "snntorch", bench.primate_reaching, (24,), 10,
          run=runs.time_first, read=runs.last, options={"readout": "last_membrane", "scores": "values"}),
]  # fmt: skip

SPIKINGJELLY = [
    Entry("spikingjelly-lif-fc-mnist", "spikingjelly", examples.lif_fc_mnist, (1, 8, 8), 20, **STEPS),
    Entry("spikingjelly-rsnn-feedback", "spikingjelly", examples.rows_feedback, (12,), 12, coding=CURRENT,
          run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-element-wise-feedback", "spikingjelly", examples.element_wise_feedback, (12,), 12,
          coding=CURRENT, run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-ann2snn", "spikingjelly", examples.converted_ann, (1, 8, 8), 10, coding=DIRECT,
          run=runs.steps, read=runs.mean, options={"readout": "mean"}),
    Entry("spikingjelly-cuba", "spikingjelly", examples.current_based, (12,), 10,
          run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-qif-eif", "spikingjelly", examples.quadratic, (12,), 10, **TIME_FIRST),
    Entry("spikingjelly-fashion-mnist-net", "spikingjelly", zoo.fashion_mnist_net, (1, 28, 28), 4, coding=DIRECT,
          run=runs.steps, read=runs.mean),
    Entry("spikingjelly-sew-resnet18", "spikingjelly", zoo.sew_resnet18, (3, 16, 16), 4, coding=DIRECT,
          **VOTES, options={"readout": "mean"}),
    Entry("spikingjelly-qkformer", "spikingjelly", zoo.small_qkformer, (3, 32, 32), 2, coding=DIRECT,
          run=runs.image, read=runs.itself),
    Entry("spikingjelly-tokens", "spikingjelly", papers.tokens, (2, 8, 8), 4, run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-gated", "spikingjelly", papers.gated, (2, 6, 6), 6, **TIME_FIRST),
    Entry("spikingjelly-up-and-down", "spikingjelly", papers.up_and_down, (1, 8, 8), 6, **STEPS),
    Entry("spikingjelly-own-defaults", "spikingjelly", papers.own_defaults, (2, 6, 6), 8, **TIME_FIRST),
    Entry("spikingjelly-membranes", "spikingjelly", papers.membranes, (12,), 8, run=runs.time_first,
          read=runs.itself),
    Entry("spikingjelly-norms-over-time", "spikingjelly", papers.norms_over_time, (2, 6, 6), 6, **TIME_FIRST),
]  # fmt: skip

NORSE = [
    Entry("norse-intro", "norse", norse.intro, (3, 8, 8), 12, coding=DIRECT, run=runs.steps_with_state, read=runs.last,
          options={"readout": "last"}),
    Entry("norse-lif-box", "norse", norse.boxes, (20,), 15, **WITH_STATE),
    Entry("norse-vgg", "norse", norse.vgg_features, (3, 8, 8), 8, **VOTES, options={"readout": "mean"}),
    Entry("norse-lsnn", "norse", norse.long_short_term, (12,), 20, run=runs.time_first, read=runs.itself),
    Entry("norse-lif-adex", "norse", norse.adaptive_exponential, (20,), 20, **MEMBRANE),
    Entry("norse-encoded", "norse", norse.encoded, (12,), 10, coding=DIRECT, run=runs.image, read=runs.itself,
          options={"readout": "last_membrane"}),
]  # fmt: skip

SINABS = [
    Entry("sinabs-quickstart", "sinabs", sinabs.quickstart, (16,), 20, **BATCH_FIRST),
    Entry("sinabs-weight-transfer-spiking", "sinabs", sinabs.weight_transfer_spiking, (1, 14,
          14), 10, batch=4, **SQUEEZED),
    Entry("sinabs-recurrent", "sinabs", sinabs.recurrent, (12,), 12, **BATCH_FIRST),
    Entry("sinabs-alif", "sinabs", sinabs.adaptive, (12,), 15, **BATCH_FIRST),
    Entry("sinabs-exp-leak", "sinabs", sinabs.leaky_readout, (12,), 15,
          run=runs.batch_first, read=lambda output: output.amax(1)),
    Entry("sinabs-skip", "sinabs", sinabs.skip_connection, (2, 9, 9), 8, batch=4, **SQUEEZED),
]  # fmt: skip

REST: Any = {"start": "rest", "run": runs.batch_first_at_rest}
OWN = [
    Entry("own-clamped-recurrent", "torch", own.clamped_recurrent, (12,), 10, **REST, read=runs.total_batch_first),
    Entry("own-clamped-readout", "torch", own.clamped_readout, (12,), 12, **REST, read=runs.itself,
          refusal="torch.Tensor.add adds up probabilities of each step, and a readout makes them once"),
    Entry("own-balanced-resonators", "torch", own.balanced_resonators, (12,), 12, **LARGEST),
    Entry("own-dendritic", "torch", own.dendritic, (12,), 16, run=runs.batch_first, read=runs.itself),
    Entry("own-integer", "torch", own.integer, (12,), 8, coding=CURRENT, run=runs.time_first, read=runs.itself),
    Entry("own-rectified", "torch", own.rectified, (2, 8), 12, coding=CURRENT, **STEPS),
    Entry("own-shown", "torch", own.shown, (1, 8, 8), 4, coding=DIRECT, run=runs.image_for_steps,
          read=runs.itself),
    Entry("own-kept", "torch", own.kept, (12,), 6, coding=DIRECT, run=runs.image, read=runs.itself),
]  # fmt: skip

NIR = [
    Entry("nir-from-snntorch-recurrent", "nir", nir_files.from_snntorch_recurrent, (12,), 20, **STEPS,
          layers=nir_files.snntorch_recurrent_layers,
          options={"dialect": "snntorch", "dt": "0.0001", "reset": "subtract", "reset-timing": "next_step"}),
    Entry("nir-from-norse", "nir", nir_files.from_norse, (12,), 20, layers=nir_files.norse_layers,
          **MEMBRANE, options={"dialect": "norse", "dt": "1e-6", "reset": "zero"}),
    Entry("nir-from-sinabs", "nir", nir_files.from_sinabs, (1, 6, 6), 10, layers=nir_files.sinabs_layers, **SQUEEZED,
          options={"dialect": "sinabs", "dt": "1", "reset": "subtract"}),
    Entry("nir-from-spikingjelly", "nir", nir_files.from_spikingjelly, (12,), 20, **STEPS,
          layers=nir_files.spikingjelly_layers, options={"dialect": "spikingjelly", "dt": "0.0001", "reset": "zero"}),
    Entry("nir-paper-cnn", "nir", nir_files.paper_cnn, (2, 12, 12), 30,
          options={"dialect": "norse", "dt": "0.0001", "reset": "zero"}),
]  # fmt: skip

NETWORKS = (*SNNTORCH, *NEUROBENCH, *SPIKINGJELLY, *NORSE, *SINABS, *OWN, *NIR)
