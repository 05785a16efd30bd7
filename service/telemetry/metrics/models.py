"""The metrics of each version of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from spikeserve.service.telemetry.metrics.families import SHORT_SECONDS, Distribution, Families, Value
from spikeserve.service.telemetry.record import AnswerRecord, BatchRecord, Model, Version

OPERATIONS = tuple(10.0**power for power in range(2, 12))
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODEL = ("model", "version")


class RunCounts(NamedTuple):
    """The counts of one version of a model on its engine, kept because looking them up takes longer than counting."""

    neurons: Mapping[str, int]  # of each layer
    encode_seconds: Distribution
    inference_seconds: Distribution
    batch_samples: Distribution
    operations: Distribution
    dense: Value
    samples: Value
    saved: Value
    layers: Mapping[str, tuple[Value, Value]]  # the spikes and the neuron steps


class ModelMetrics(Families):
    """The state of each version, its requests, and its engine's runs."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[tuple[str, int, str], RunCounts] = {}  # by name, version and engine
        about = "1 for each version of a model, in its state."
        self.states = self.gauge("model_versions", about, *MODEL, "state")
        about = "1 for each version whose last load failed, though it may answer as it was before, else 0."
        self.failed = self.gauge("model_load_failed", about, *MODEL)
        about = "For how long each version that is being loaded has been, or has waited to be."
        self.loading = self.gauge("model_loading_seconds", about, *MODEL)
        self.statuses = self.counter("model_requests", "Requests for a model, answered.", *MODEL, "status")
        about = "From the arrival of a request for a model to the end of its answer, except streams."
        self.seconds = self.histogram("model_request_seconds", about, *MODEL)
        before = len(self.families)
        about = "Seconds to encode a request's samples for the network."
        self.encode = self.histogram("encode_seconds", about, *MODEL, bounds=SHORT_SECONDS)
        about = "What the engine takes for one run."
        self.inference = self.histogram("inference_seconds", about, *MODEL, "engine", bounds=SHORT_SECONDS)
        about = "Samples that went through the engine in one run."
        self.batches = self.histogram("batch_samples", about, *MODEL, bounds=SAMPLES)
        about = "Weights met by non-zero inputs, in one request."
        self.operations = self.histogram("request_synaptic_operations", about, *MODEL, bounds=OPERATIONS)
        about = "What the synaptic operations of the same requests would be if no input and no spike were 0."
        self.dense = self.counter("dense_synaptic_operations", about, *MODEL)
        self.samples = self.counter("samples", "Samples classified.", *MODEL)
        about = "Steps that samples did not take, since they ended before the last one."
        self.saved = self.counter("steps_saved", about, *MODEL)
        # The ratio of these two is the layer's firing rate.
        self.spikes = self.counter("layer_spikes", "Spikes of a layer's neurons.", *MODEL, "layer")
        about = "Steps of a layer's neurons, in each of which one may spike."
        self.steps = self.counter("layer_neuron_steps", about, *MODEL, "layer")
        self.of_runs = self.families[before:]
        about = "The layer's firing rate on the test split, as training measured it and the bundle holds it."
        self.training = self.gauge("layer_training_firing_rate", about, *MODEL, "layer")

    def count_requests(self, name: str, version: int, status: int, number: int, seconds: Iterable[float]) -> None:
        """Count answered requests for a version of a model, and the times of those that say anything of the server."""
        self.statuses.of(name, version, status).inc(number)
        self.seconds.of(name, version).observe_all(seconds)

    def count_run(self, model: Model, samples: int, seconds: float) -> None:
        """Count one run of a model's engine."""
        counts = self._runs_of(model)
        counts.inference_seconds.observe(seconds)
        counts.batch_samples.observe(samples)

    def count_answer(self, model: Model, answer: AnswerRecord) -> None:
        """Count the work of a model for one request."""
        counts = self._runs_of(model)
        counts.encode_seconds.observe(answer.times.encode_seconds)
        counts.operations.observe(answer.synaptic_operations)
        counts.saved.inc(answer.samples * answer.time_steps - answer.steps)
        _count_samples(counts, model, answer.samples, answer.steps, answer.spikes_per_layer)

    def count_batches(self, batches: Sequence[BatchRecord]) -> None:
        """Count runs, and the work of their models for the requests that shared them."""
        for model in dict.fromkeys(batch.model for batch in batches):
            own = [batch for batch in batches if batch.model is model]
            counts, answers = self._runs_of(model), [each for batch in own for each in batch.answers]
            sizes = [sum(each.samples for each in batch.answers) for batch in own]
            steps = sum(each.steps for each in answers)
            counts.inference_seconds.observe_all([each.times.run_ended - each.times.run_began for each in own])
            counts.batch_samples.observe_all(sizes)
            counts.encode_seconds.observe_all([batch.times.encode_seconds for batch in own for _ in batch.answers])
            counts.operations.observe_all([each.synaptic_operations for each in answers])
            counts.saved.inc(sum(size * batch.time_steps for size, batch in zip(sizes, own, strict=True)) - steps)
            spikes = {name: sum(sum(each.spikes[name].tolist()) for each in own) for name in own[0].spikes}
            _count_samples(counts, model, sum(sizes), steps, spikes)

    def _runs_of(self, model: Model) -> RunCounts:
        """Return the counts of a model's runs, made when they are missing."""
        key = (model.name, model.version, model.engine.name)
        counts = self.runs.get(key)
        if counts is not None and counts.neurons == model.layers:
            return counts
        if counts is not None:  # after a reload a version may be another network
            for family in self.of_runs:
                family.drop(model.name, str(model.version))
        name, version, engine = key
        self.runs[key] = counts = RunCounts(
            dict(model.layers),
            self.encode.of(name, version),
            self.inference.of(name, version, engine),
            self.batches.of(name, version),
            self.operations.of(name, version),
            self.dense.of(name, version),
            self.samples.of(name, version),
            self.saved.of(name, version),
            {each: (self.spikes.of(name, version, each), self.steps.of(name, version, each)) for each in model.layers},
        )
        return counts

    def update(self, versions: Sequence[Version]) -> None:
        """Export the state of each of these versions, and drop the counts of all others."""
        listed = {(each.name, str(each.version)) for each in versions}
        self.keep(listed)
        self.runs = {key: counts for key, counts in self.runs.items() if (key[0], str(key[1])) in listed}
        for gauge in (self.states, self.loading, self.training):
            gauge.counts.clear()
        for each in versions:
            model = each.name, each.version
            self.states.of(*model, each.state).set(1)
            self.failed.of(*model).set(each.error is not None)
            if each.loading_seconds is not None:
                self.loading.of(*model).set(each.loading_seconds)
            for layer, rate in each.training_rates.items():
                self.training.of(*model, layer).set(rate)


def _count_samples(counts: RunCounts, model: Model, samples: int, steps: int, spikes: Mapping[str, int]) -> None:
    once, per_step = model.dense
    counts.dense.inc(once * samples + per_step * steps)
    counts.samples.inc(samples)
    for name, fired in spikes.items():
        of_layer, neuron_steps = counts.layers[name]
        of_layer.inc(fired)
        neuron_steps.inc(steps * counts.neurons[name])
