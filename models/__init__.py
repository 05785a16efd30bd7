"""What training and serving agree on, room by room.

    spec        a network as data: nodes, the table of the neurons' parameters, validation
    neurons     the neuron's equations, one step, and a layer through time
    coding      samples and events to what a network sees at each step
    engines     ways to run a spec, spike for spike, each declared in `models.engines.declared`
    bundle      one immutable version of one model on disk, and the repository of them
    pretrained  the bundles that ship

A room imports only those above it. The package imports neither `training` nor `service`; only `models.engines.torch`
imports torch, and only `models.engines.onnx.graph` imports onnx, so that a serving image needs neither.
"""
