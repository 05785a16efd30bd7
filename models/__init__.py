"""The models: everything that training and serving share.

    spec        a network as data: nodes, the table of the neurons' parameters, validation
    neurons     the neuron's equations for one step, and a layer through time
    coding      encodes samples and events as the network's inputs at each step
    engines     several implementations that run a spec, spike for spike; listed in `models.engines.declared`
    bundle      one immutable version of one model on disk, and the repository of bundles
    pretrained  the bundles that ship and are served where no repository is said; `gallery` has others

Each package imports only those above it. `models` imports neither `training` nor `service`; only
`models.engines.torch` imports torch, and only `plugins.onnx.graph` imports onnx, so that a serving image needs
neither.
"""
