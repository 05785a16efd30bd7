"""What training and serving agree on: the spec, the bundle, coding, the neuron's equations and the engines.

Imports neither `training` nor `service`. Only `models.engines.torch` imports torch, and only
`models.engines.onnx.graph` imports onnx, so that a serving image needs neither.
"""
