"""The metrics of each version of a model.

Only the event loop counts requests, so that the counts can be plain numbers without locks, which takes a tenth of the
time per request. They become Prometheus metrics on each scrape.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from spikeserve.service.telemetry.metrics.distribution import SECONDS, SHORT_SECONDS, Distribution
from spikeserve.service.telemetry.record import AnswerRecord, BatchRecord, Model, VersionRecord

OPERATIONS = tuple(10.0**power for power in range(2, 12))
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODEL = ("model", "version")


@dataclass
class RequestCounts:
    """The requests for one version of a model, by status, and how long they took."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: Distribution = field(default_factory=lambda: Distribution(SECONDS))


@dataclass
class LayerCounts:
    """The counts of one layer's neurons."""

    neurons: int
    spikes: int = 0
    neuron_steps: int = 0


@dataclass
class RunCounts:
    """The counts of one version of a model on its engine."""

    neurons: dict[str, int]  # the number of neurons, by layer
    layers: dict[str, LayerCounts]
    samples: int = 0  # without those of trials
    trial_samples: int = 0
    steps_saved: int = 0
    dense_operations: int = 0
    encode_seconds: Distribution = field(default_factory=lambda: Distribution(SHORT_SECONDS))
    inference_seconds: Distribution = field(default_factory=lambda: Distribution(SHORT_SECONDS))
    batch_samples: Distribution = field(default_factory=lambda: Distribution(SAMPLES))
    operations: Distribution = field(default_factory=lambda: Distribution(OPERATIONS))


class ModelMetrics(Collector):
    """The state of each version, its requests, and its engine's runs."""

    def __init__(self) -> None:
        self.versions: Sequence[VersionRecord] = ()  # set on each scrape
        self.requests = defaultdict[tuple[str, int], RequestCounts](RequestCounts)  # by name and version
        self.runs: dict[tuple[str, int, str], RunCounts] = {}  # by name, version and engine

    def count_requests(self, name: str, version: int, status: int, number: int, seconds: Iterable[float]) -> None:
        """Count answered requests for a version of a model, and the times of those that say anything of the server."""
        counts = self.requests[name, version]
        counts.statuses[status] += number
        counts.seconds.observe_all(seconds)

    def count_run(self, model: Model, samples: int, seconds: float) -> None:
        """Count one run of a model's engine."""
        counts = self._runs_of(model)
        counts.inference_seconds.observe(seconds)
        counts.batch_samples.observe(samples)

    def count_answer(self, model: Model, answer: AnswerRecord, *, is_trial: bool) -> None:
        """Count the work of a model for one request; a trial says nothing of what clients send, nor of its drift."""
        counts = self._runs_of(model)
        counts.encode_seconds.observe(answer.times.encode_seconds)
        if answer.synaptic_operations is not None:
            counts.operations.observe(answer.synaptic_operations)
        counts.steps_saved += answer.samples * answer.time_steps - answer.steps
        self._count_samples(counts, model, answer.samples, answer.steps, answer.spikes_per_layer, is_trial=is_trial)

    def count_batch(self, batch: BatchRecord) -> None:
        """Count a run, and the work of a model for the requests that shared it."""
        counts, times, answers = self._runs_of(batch.model), batch.times, batch.answers
        samples, steps = sum(each.samples for each in answers), sum(each.steps for each in answers)
        counts.inference_seconds.observe(times.run_ended - times.run_began)
        counts.batch_samples.observe(samples)
        counts.encode_seconds.observe_all([times.encode_seconds] * len(answers))
        counts.operations.observe_all([each.synaptic_operations for each in answers])
        counts.steps_saved += samples * batch.time_steps - steps
        spikes = {name: sum(of_each.tolist()) for name, of_each in batch.spikes.items()}
        self._count_samples(counts, batch.model, samples, steps, spikes, is_trial=False)

    def _count_samples(
        self, counts: RunCounts, model: Model, samples: int, steps: int, spikes: Mapping[str, int], *, is_trial: bool
    ) -> None:
        if model.dense is not None:
            once, per_step = model.dense
            counts.dense_operations += once * samples + per_step * steps
        if is_trial:
            counts.trial_samples += samples
            return
        counts.samples += samples
        for name, fired in spikes.items():
            layer = counts.layers[name]
            layer.spikes += fired
            layer.neuron_steps += steps * layer.neurons

    def _runs_of(self, model: Model) -> RunCounts:
        """Return the counts of a model's runs, made when they are missing."""
        key = (model.name, model.version, model.engine.name)
        counts = self.runs.get(key)
        if counts is None or counts.neurons != model.layers:  # after a reload a version may be another network
            layers = {name: LayerCounts(neurons) for name, neurons in model.layers.items()}
            counts = self.runs[key] = RunCounts(dict(model.layers), layers)
        return counts

    def describe(self) -> Iterable[Metric]:
        """Return nothing; without this method the registry would collect once before any model is loaded."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of the listed versions; the counts of versions no longer listed are dropped."""
        self._keep_only({(each.model, each.version) for each in self.versions})
        yield from self._version_families()
        yield from self._request_families()
        yield from self._run_families()
        yield from self._layer_families()

    def _keep_only(self, listed: set[tuple[str, int]]) -> None:
        """Drop the counts of all other versions, which would add up as versions come and go."""
        for version in self.requests.keys() - listed:
            del self.requests[version]
        for run in [key for key in self.runs if key[:2] not in listed]:
            del self.runs[run]

    def _version_families(self) -> Iterator[Metric]:
        about = "1 for each version of a model, in its state."
        versions = GaugeMetricFamily("spikeserve_model_versions", about, labels=(*MODEL, "state"))
        about = "1 for each version whose last load failed, though it may answer as it was before, else 0."
        loads = GaugeMetricFamily("spikeserve_model_load_failed", about, labels=MODEL)
        about = "For how long each version that is being loaded has been, or has waited to be."
        loading = GaugeMetricFamily("spikeserve_model_loading_seconds", about, labels=MODEL)
        for each in self.versions:
            versions.add_metric((each.model, str(each.version), each.state), 1)
            loads.add_metric((each.model, str(each.version)), float(each.load_failed))
            if each.loading_seconds is not None:
                loading.add_metric((each.model, str(each.version)), each.loading_seconds)
        yield versions
        yield loads
        yield loading

    def _request_families(self) -> Iterator[Metric]:
        about = "Requests for a model, answered."
        requests = CounterMetricFamily("spikeserve_model_requests", about, labels=(*MODEL, "status"))
        about = "From the arrival of a request for a model to the end of its answer, except streams."
        seconds = HistogramMetricFamily("spikeserve_model_request_seconds", about, labels=MODEL)
        for (name, version), counts in self.requests.items():
            seconds.add_metric((name, str(version)), counts.seconds.buckets(), counts.seconds.sum)
            for status, count in counts.statuses.items():
                requests.add_metric((name, str(version), str(status)), count)
        yield requests
        yield seconds

    def _run_families(self) -> Iterator[Metric]:
        about = "Seconds to encode a request's samples for the network."
        encode = HistogramMetricFamily("spikeserve_encode_seconds", about, labels=MODEL)
        about = "What the engine takes for one run."
        inference = HistogramMetricFamily("spikeserve_inference_seconds", about, labels=(*MODEL, "engine"))
        about = "Samples that went through the engine in one run."
        batches = HistogramMetricFamily("spikeserve_batch_samples", about, labels=MODEL)
        about = "Weights met by non-zero inputs, in one request."
        operations = HistogramMetricFamily("spikeserve_request_synaptic_operations", about, labels=MODEL)
        about = "What the synaptic operations of the same requests would be if no input and no spike were 0."
        dense = CounterMetricFamily("spikeserve_dense_synaptic_operations", about, labels=MODEL)
        about = "Samples classified, without those of trials."
        samples = CounterMetricFamily("spikeserve_samples", about, labels=MODEL)
        about = "Samples of trials, which are in no layer's spikes: those of the page, and of requests with X-Trial."
        trials = CounterMetricFamily("spikeserve_trial_samples", about, labels=MODEL)
        about = "Steps that samples did not take, since they ended before the last one."
        saved = CounterMetricFamily("spikeserve_steps_saved", about, labels=MODEL)
        for (name, version, engine), counts in self.runs.items():
            model = (name, str(version))
            encode.add_metric(model, counts.encode_seconds.buckets(), counts.encode_seconds.sum)
            inference.add_metric((*model, engine), counts.inference_seconds.buckets(), counts.inference_seconds.sum)
            batches.add_metric(model, counts.batch_samples.buckets(), counts.batch_samples.sum)
            operations.add_metric(model, counts.operations.buckets(), counts.operations.sum)
            dense.add_metric(model, counts.dense_operations)
            samples.add_metric(model, counts.samples)
            trials.add_metric(model, counts.trial_samples)
            saved.add_metric(model, counts.steps_saved)
        yield from (encode, inference, batches, operations, dense, samples, trials, saved)

    def _layer_families(self) -> Iterator[Metric]:
        """Return each layer's spikes and neuron steps, whose ratio is its firing rate, and the rate in training."""
        labels = (*MODEL, "layer")
        about = "The layer's firing rate on the test split, as training measured it and the bundle holds it."
        training = GaugeMetricFamily("spikeserve_layer_training_firing_rate", about, labels=labels)
        for each in self.versions:
            for layer, rate in each.training_rates.items():
                training.add_metric((each.model, str(each.version), layer), rate)
        spikes = CounterMetricFamily("spikeserve_layer_spikes", "Spikes of a layer's neurons.", labels=labels)
        about = "Steps of a layer's neurons, in each of which one may spike."
        steps = CounterMetricFamily("spikeserve_layer_neuron_steps", about, labels=labels)
        for (name, version, _), counts in self.runs.items():
            for layer, layer_counts in counts.layers.items():
                spikes.add_metric((name, str(version), layer), layer_counts.spikes)
                steps.add_metric((name, str(version), layer), layer_counts.neuron_steps)
        yield from (spikes, steps, training)
