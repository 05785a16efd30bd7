"""The table of the zoo: each network, how it is imported and run, and what comes of it."""

from __future__ import annotations

from typing import Any

from spikeserve.models.spec import Coding
from tests.zoo import (
    neurobench_examples,
    nir_files,
    norse_examples,
    onnx_exports,
    own_neurons,
    runs,
    sinabs_examples,
    snntorch_projects,
    snntorch_tutorials,
    spikingjelly_examples,
    spikingjelly_projects,
    spikingjelly_zoo,
    weights,
)
from tests.zoo.registry import Entry, refused

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

tutorials, projects, bench = snntorch_tutorials, snntorch_projects, neurobench_examples
examples, zoo, papers = spikingjelly_examples, spikingjelly_zoo, spikingjelly_projects
norse, sinabs, own = norse_examples, sinabs_examples, own_neurons

SNNTORCH = [
    Entry("snntorch-3-feedforward", "snntorch", tutorials.feedforward, (36,), 20, **TIME_FIRST),
    Entry("snntorch-5-fully-connected", "snntorch", tutorials.fully_connected, (36,), 25, **IMAGE),
    Entry("snntorch-6-convolutional-class", "snntorch", tutorials.convolutional_class, (1, 14, 14), 8, **TIME_FIRST),
    Entry("snntorch-6-fixed-batch", "snntorch", tutorials.convolutional_fixed_batch, (1, 14,
          14), 8, batch=4, **TIME_FIRST),
    Entry("snntorch-6-sequential", "snntorch", tutorials.convolutional_sequential, (1, 14, 14), 10, **STEPS),
    Entry("snntorch-7-forward-pass", "snntorch", tutorials.neuromorphic, (2, 10, 10), 12, **TIME_FIRST),
    Entry("snntorch-stmnist", "snntorch", tutorials.tactile, (2, 10, 10), 10, **STEPS),
    Entry("snntorch-synaptic", "snntorch", tutorials.synaptic, (36,), 20, **IMAGE),
    Entry("snntorch-2-lapicque", "snntorch", tutorials.lapicque, (20,), 20, **STEPS),
    Entry("snntorch-rleaky", "snntorch", tutorials.recurrent_class, (36,), 15, **IMAGE),
    Entry("snntorch-rsynaptic", "snntorch", tutorials.recurrent_synaptic, (12,), 15, **TIME_FIRST),
    Entry("snntorch-rleaky-conv", "snntorch", tutorials.recurrent_convolutional, (1, 6, 6), 8, **TIME_FIRST),
    Entry("snntorch-regression", "snntorch", tutorials.regression, (1,), 12, coding=CURRENT,
          run=runs.time_first, read=runs.last, options={"readout": "last_membrane", "scores": "values"}),
    Entry("snntorch-population", "snntorch", tutorials.population, (1, 6, 6), 10, **STEPS),
    Entry("snntorch-bntt", "snntorch", tutorials.batch_norm_through_time, (20,), 6, **IMAGE),
    Entry("snntorch-alpha", "snntorch", tutorials.alpha, (20,), 10, **TIME_FIRST),
    Entry("snntorch-exoplanet", "snntorch", tutorials.exoplanet, (40,), 1,
          coding=CURRENT, run=runs.image, read=runs.itself, options={"readout": "last"}),
    Entry("snntorch-autoencoder", "snntorch", tutorials.autoencoder, (1, 8, 8), 6, **TIME_FIRST),
    Entry("snntorch-heartbeats", "snntorch", projects.heartbeats, (18,), 20,
          coding=DIRECT, run=runs.image_for_steps, read=runs.total),
    Entry("snntorch-electrodes", "snntorch", projects.electrodes, (8,), 20,
          run=runs.time_last_in_a_list, read=runs.total),
    Entry("snntorch-voxels", "snntorch", projects.voxels, (2, 8, 8), 6,
          run=runs.time_behind_channels, read=runs.itself),
    Entry("snntorch-policy", "snntorch", projects.policy, (6,), 8, coding=CURRENT, run=runs.actions, read=runs.itself,
          options={"low": "-2", "high": "2"}, answer="action"),
    Entry("snntorch-rate-coded", "snntorch", projects.rate_coded, (16,), 10, coding=Coding.RATE),
    Entry("weights-safetensors", "snntorch", tutorials.untrained, (20,), 10, **TIME_FIRST,
          weights=(tutorials.trained, weights.safetensors)),
    Entry("weights-lightning", "snntorch", tutorials.untrained, (20,), 10, **TIME_FIRST,
          weights=(tutorials.trained, weights.lightning)),
    Entry("weights-training-loop", "snntorch", tutorials.untrained, (20,), 10, **TIME_FIRST,
          weights=(tutorials.trained, weights.training_loop)),
]  # fmt: skip

NEUROBENCH = [
    Entry("neurobench-gsc", "snntorch", bench.keyword_spotting, (20,), 20, coding=CURRENT, **STEPS,
          options={"low": "-1"}),
    Entry("neurobench-nehar", "snntorch", bench.human_activity, (6,), 12,
          coding=CURRENT, run=runs.batch_first, read=runs.total,
          options={"low": "-2", "high": "2"}),
    Entry("neurobench-eeg", "snntorch", bench.motor_imagery, (16,), 12, coding=CURRENT, **BATCH_FIRST,
          options={"low": "-3", "high": "3"}),
    Entry("neurobench-dvs-gesture", "snntorch", bench.gesture, (2, 16, 16), 10, **STEPS),
    Entry("neurobench-primate-reaching", "snntorch", bench.primate_reaching, (24,), 10,
          run=runs.time_first, read=runs.last, options={"readout": "last_membrane", "scores": "values"}),
]  # fmt: skip

SPIKINGJELLY = [
    Entry("spikingjelly-lif-fc-mnist", "spikingjelly", examples.lif_fc_mnist, (1, 8, 8), 20, **STEPS),
    Entry("spikingjelly-conv-fashion-mnist", "spikingjelly", examples.conv_fashion_mnist, (1, 8, 8), 4,
          coding=DIRECT, run=runs.image, read=runs.itself),
    Entry("spikingjelly-clock-driven", "spikingjelly", examples.clock_driven_static_conv, (1, 8, 8), 5,
          coding=DIRECT, run=runs.image, read=runs.itself),
    Entry("spikingjelly-rsnn-plain", "spikingjelly", examples.rows_plain, (12,), 12, coding=CURRENT,
          run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-rsnn-synapse-filter", "spikingjelly", examples.rows_synapse_filter, (12,), 12,
          coding=CURRENT, run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-rsnn-feedback", "spikingjelly", examples.rows_feedback, (12,), 12, coding=CURRENT,
          run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-element-wise-feedback", "spikingjelly", examples.element_wise_feedback, (12,), 12,
          coding=CURRENT, run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-seq-to-ann", "spikingjelly", examples.sequence_containers, (2, 8, 8), 6, **TIME_FIRST),
    Entry("spikingjelly-permuted", "spikingjelly", examples.permuted_events, (2, 8, 8), 6, **BATCH_FIRST),
    Entry("spikingjelly-skip-add", "spikingjelly", examples.skip_add, (2, 6, 6), 6, **TIME_FIRST),
    Entry("spikingjelly-skip-and", "spikingjelly", examples.skip_and, (2, 6, 6), 6, **TIME_FIRST),
    Entry("spikingjelly-skip-iand", "spikingjelly", examples.skip_iand, (2, 6, 6), 6, **TIME_FIRST),
    Entry("spikingjelly-shared-cat", "spikingjelly", examples.shared_weights_cat, (1, 6, 6), 6, **TIME_FIRST),
    Entry("spikingjelly-ann2snn", "spikingjelly", examples.converted_ann, (1, 8, 8), 10, coding=DIRECT,
          run=runs.steps, read=runs.mean, options={"readout": "mean"}),
    Entry("spikingjelly-cuba", "spikingjelly", examples.current_based, (12,), 10,
          run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-qif-eif", "spikingjelly", examples.quadratic, (12,), 10, **TIME_FIRST),
    Entry("spikingjelly-mnist-net", "spikingjelly", zoo.mnist_net, (1, 28, 28), 4, coding=DIRECT, **VOTES),
    Entry("spikingjelly-fashion-mnist-net", "spikingjelly", zoo.fashion_mnist_net, (1, 28, 28), 4, coding=DIRECT,
          run=runs.steps, read=runs.mean),
    Entry("spikingjelly-nmnist-net", "spikingjelly", zoo.nmnist_net, (2, 34, 34), 4, **VOTES),
    Entry("spikingjelly-cifar10-net", "spikingjelly", zoo.cifar10_net, (3, 32, 32), 4, coding=DIRECT, **VOTES),
    Entry("spikingjelly-cifar10-dvs-net", "spikingjelly", zoo.cifar10_dvs_net, (2, 128, 128), 2, **VOTES),
    Entry("spikingjelly-dvs-gesture-net", "spikingjelly", zoo.dvs_gesture_net, (2, 128, 128), 2, **VOTES),
    Entry("spikingjelly-sew-resnet18", "spikingjelly", zoo.sew_resnet18, (3, 16, 16), 4, coding=DIRECT,
          **VOTES, options={"readout": "mean"}),
    Entry("spikingjelly-spiking-resnet18", "spikingjelly", zoo.spiking_resnet18, (3, 16, 16), 4, coding=DIRECT,
          **VOTES, options={"readout": "mean"}),
    Entry("spikingjelly-spiking-vgg11", "spikingjelly", zoo.spiking_vgg11, (3, 16, 16), 4, coding=DIRECT,
          **VOTES, options={"readout": "mean"}),
    Entry("spikingjelly-spikformer", "spikingjelly", zoo.small_spikformer, (3, 16, 16), 2, coding=DIRECT,
          run=runs.image, read=runs.mean, options={"readout": "mean"}),
    Entry("spikingjelly-qkformer", "spikingjelly", zoo.small_qkformer, (3, 32, 32), 2, coding=DIRECT,
          run=runs.image, read=runs.itself),
    Entry("spikingjelly-tokens", "spikingjelly", papers.tokens, (2, 8, 8), 4, run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-causal", "spikingjelly", papers.causal, (3, 12), 6, coding=CURRENT,
          run=runs.time_first, read=runs.itself),
    Entry("spikingjelly-gated", "spikingjelly", papers.gated, (2, 6, 6), 6, **TIME_FIRST),
    Entry("spikingjelly-up-and-down", "spikingjelly", papers.up_and_down, (1, 8, 8), 6, **STEPS),
    Entry("spikingjelly-own-defaults", "spikingjelly", papers.own_defaults, (2, 6, 6), 8, **TIME_FIRST),
    Entry("spikingjelly-membranes", "spikingjelly", papers.membranes, (12,), 8, run=runs.time_first,
          read=runs.itself),
    Entry("spikingjelly-groups-time-last", "spikingjelly", papers.groups_of_last, (10,), 8,
          run=runs.time_last, read=runs.itself),
    Entry("spikingjelly-norms-over-time", "spikingjelly", papers.norms_over_time, (2, 6, 6), 6, **TIME_FIRST),
    Entry("spikingjelly-own-neuron", "spikingjelly", papers.own_neuron, (12,), 6, **STEPS),
    Entry("spikingjelly-own-loop", "spikingjelly", papers.own_loop, (12,), 6, run=runs.time_first, read=runs.itself),
]  # fmt: skip

NORSE = [
    Entry("norse-intro", "norse", norse.intro, (3, 8, 8), 12, coding=DIRECT, run=runs.steps_with_state, read=runs.last,
          options={"readout": "last"}),
    Entry("norse-readout", "norse", norse.readout, (20,), 20, **MEMBRANE),
    Entry("norse-lift", "norse", norse.lifted, (1, 8, 8), 12, **LARGEST),
    Entry("norse-lif-box", "norse", norse.boxes, (20,), 15, **WITH_STATE),
    Entry("norse-mnist", "norse", norse.mnist_classifier, (1, 6, 6), 16, **LARGEST),
    Entry("norse-mnist-decoded", "norse", norse.mnist_decoded, (1, 6, 6), 16, run=runs.time_first, read=runs.itself),
    Entry("norse-conv-net", "norse", norse.conv_net, (1, 16, 16), 8, **LARGEST),
    Entry("norse-vgg", "norse", norse.vgg_features, (3, 8, 8), 8, **VOTES, options={"readout": "mean"}),
    Entry("norse-cifar10", "norse", norse.cifar10, (3, 8, 8), 12, coding=DIRECT, run=runs.image, read=runs.itself),
    Entry("norse-speech-commands", "norse", norse.speech_commands, (12,), 20, run=runs.time_first, read=runs.itself),
    Entry("norse-lsnn", "norse", norse.long_short_term, (12,), 20, run=runs.time_first, read=runs.itself),
    Entry("norse-memory", "norse", norse.store_recall, (8,), 12, run=runs.batch_first, read=runs.last,
          options={"readout": "last_membrane"}),
    Entry("norse-lif-adex", "norse", norse.adaptive_exponential, (20,), 20, **MEMBRANE),
    Entry("norse-lsnn-layer", "norse", norse.long_short_layer, (20,), 20, **MEMBRANE),
    Entry("norse-refractory", "norse", norse.refractory, (20,), 20, **MEMBRANE),
    Entry("norse-inverted-residual", "norse", norse.inverted_residual, (1, 6, 6), 12, **LARGEST),
    Entry("norse-encoded", "norse", norse.encoded, (12,), 16, coding=DIRECT, run=runs.image, read=runs.itself,
          options={"readout": "last_membrane"}),
]  # fmt: skip

SINABS = [
    Entry("sinabs-quickstart", "sinabs", sinabs.quickstart, (16,), 20, **BATCH_FIRST),
    Entry("sinabs-quickstart-conv", "sinabs", sinabs.quickstart_convolutional, (2, 8, 8), 10, batch=4,
          run=runs.batches_of_steps, read=runs.mean, options={"readout": "mean"}),
    Entry("sinabs-weight-transfer", "sinabs", sinabs.weight_transfer, (1, 14, 14), 10, batch=4,
          run=runs.batches_of_steps, read=runs.mean, options={"readout": "mean"}),
    Entry("sinabs-weight-transfer-spiking", "sinabs", sinabs.weight_transfer_spiking, (1, 14,
          14), 10, batch=4, **SQUEEZED),
    Entry("sinabs-bptt", "sinabs", sinabs.backpropagation, (12,), 12, coding=CURRENT, **BATCH_FIRST),
    Entry("sinabs-nmnist", "sinabs", sinabs.nmnist, (2, 8, 8), 8, batch=4, **BATCH_FIRST),
    Entry("sinabs-recurrent", "sinabs", sinabs.recurrent, (12,), 12, **BATCH_FIRST),
    Entry("sinabs-alif", "sinabs", sinabs.adaptive, (12,), 15, **BATCH_FIRST),
    Entry("sinabs-exp-leak", "sinabs", sinabs.leaky_readout, (12,), 15,
          run=runs.batch_first, read=lambda output: output.amax(1)),
    Entry("sinabs-skip", "sinabs", sinabs.skip_connection, (2, 9, 9), 8, batch=4, **SQUEEZED),
]  # fmt: skip

REST: Any = {"start": "rest", "run": runs.batch_first_at_rest}
OWN = [
    Entry("own-clamped-lif", "torch", own.clamped_lif, (12,), 20, **REST, read=runs.total_batch_first),
    Entry("own-clamped-adaptive", "torch", own.clamped_adaptive, (12,), 20, **REST, read=runs.total_batch_first),
    Entry("own-clamped-recurrent", "torch", own.clamped_recurrent, (12,), 20, **REST, read=runs.total_batch_first),
    Entry("own-clamped-readout", "torch", own.clamped_readout, (12,), 12, **REST, read=runs.itself,
          wanted=refused("torch.Tensor.add adds up probabilities of each step, and a readout makes them once")),
    Entry("own-symplectic", "torch", own.symplectic, (12,), 20, run=runs.batch_first, read=runs.itself),
    Entry("own-euler-forward", "torch", own.euler_forward, (12,), 20, run=runs.batch_first, read=runs.itself),
    Entry("own-resonators", "torch", own.resonators, (12,), 25, **LARGEST),
    Entry("own-balanced-resonators", "torch", own.balanced_resonators, (12,), 25, **LARGEST),
    Entry("own-benchmark", "torch", own.benchmark, (2, 6, 6), 12, run=runs.batch_first, read=runs.itself),
    Entry("own-two-compartments", "torch", own.two_compartments, (12,), 12, **STEPS),
    Entry("own-dendritic", "torch", own.dendritic, (12,), 16, run=runs.batch_first, read=runs.itself),
    Entry("own-gated", "torch", own.gated, (2, 6, 6), 8, run=runs.time_first, read=runs.itself),
    Entry("own-complementary", "torch", own.complementary, (12,), 16, **STEPS),
    Entry("own-integer", "torch", own.integer, (12,), 8, coding=CURRENT, run=runs.time_first, read=runs.itself),
    Entry("own-eligible", "torch", own.eligible, (12,), 20, **LARGEST),
    Entry("own-rectified", "torch", own.rectified, (2, 8), 12, coding=CURRENT, **STEPS),
    Entry("own-delayed", "torch", own.delayed, (12,), 16, run=runs.batch_first, read=runs.itself),
    Entry("own-shown", "torch", own.shown, (1, 8, 8), 8, coding=DIRECT, run=runs.image_for_steps,
          read=runs.itself),
    Entry("own-kept", "torch", own.kept, (12,), 10, coding=DIRECT, run=runs.image, read=runs.itself),
    Entry("own-contained", "torch", own.contained, (2, 8, 8), 6, run=runs.batch_first,
          read=lambda output: output.mean(1)),
    Entry("own-parallel", "torch", own.parallel, (12,), 8, wanted=refused("torch.addmm has no node")),
    Entry("own-annealed", "torch", own.annealed, (12,), 8,
          wanted=refused("takes another number than in the first step, and each step has to be the same")),
]  # fmt: skip

NIR = [
    Entry("nir-from-snntorch", "nir", nir_files.from_snntorch, (12,), 20, **STEPS, layers=nir_files.snntorch_layers,
          options={"dialect": "snntorch", "dt": "0.0001", "reset": "subtract", "reset-timing": "next_step"}),
    Entry("nir-from-snntorch-recurrent", "nir", nir_files.from_snntorch_recurrent, (12,), 20, **STEPS,
          layers=nir_files.snntorch_recurrent_layers,
          options={"dialect": "snntorch", "dt": "0.0001", "reset": "subtract", "reset-timing": "next_step"}),
    Entry("nir-from-norse", "nir", nir_files.from_norse, (12,), 20, layers=nir_files.norse_layers,
          **MEMBRANE, options={"dialect": "norse", "dt": "1e-6", "reset": "zero"}),
    Entry("nir-from-sinabs", "nir", nir_files.from_sinabs, (1, 6, 6), 10, layers=nir_files.sinabs_layers, **SQUEEZED,
          options={"dialect": "sinabs", "dt": "1", "reset": "subtract"}),
    Entry("nir-from-spikingjelly", "nir", nir_files.from_spikingjelly, (12,), 20, **STEPS,
          layers=nir_files.spikingjelly_layers, options={"dialect": "spikingjelly", "dt": "0.0001", "reset": "zero"}),
    Entry("nir-transferred", "nir", nir_files.transferred, (1, 6, 6), 10, layers=nir_files.transferred_layers,
          run=runs.batches_of_steps, read=runs.mean, options={"dialect": "sinabs", "dt": "1", "reset": "subtract"}),
    Entry("nir-paper-cnn", "nir", nir_files.paper_cnn, (2, 12, 12), 30,
          options={"dialect": "norse", "dt": "0.0001", "reset": "zero"}),
    Entry("nir-paper-braille", "nir", nir_files.paper_braille, (12,), 30,
          options={"dialect": "snntorch", "dt": "0.001", "reset": "zero"}),
]  # fmt: skip

ONNX = [
    Entry("onnx-logistic-regression", "onnx", onnx_exports.logistic_regression, (16,), 1,
          coding=DIRECT, probabilities=True),
    Entry("onnx-logistic-zipmap", "onnx", onnx_exports.logistic_regression_zipmap, (16,), 1,
          coding=DIRECT, probabilities=True),
    Entry("onnx-mlp-classifier", "onnx", onnx_exports.mlp_classifier, (16,), 1, coding=DIRECT, probabilities=True),
    Entry("onnx-torch-logits", "onnx", onnx_exports.torch_logits, (1, 8, 8), 1, coding=DIRECT),
    Entry("onnx-torch-dynamo", "onnx", onnx_exports.torch_dynamo, (1, 8, 8), 1, coding=DIRECT),
    Entry("onnx-torch-probabilities", "onnx", onnx_exports.torch_probabilities, (16,), 1,
          coding=DIRECT, probabilities=True),
    Entry("onnx-torch-unrolled", "onnx", onnx_exports.torch_unrolled, (16,), 5,
          options={"layout": "batch_time"}),
]  # fmt: skip

NETWORKS = (*SNNTORCH, *NEUROBENCH, *SPIKINGJELLY, *NORSE, *SINABS, *OWN, *NIR, *ONNX)
