"""What training and serving agree on: the spec, the bundle, coding, the neuron's equations and the engines.

Imports neither `training` nor `service`. Only `models.torch_network` and `models.engines.pytorch` import torch, and
only `models.onnx_graph` imports onnx, so that a serving image needs neither.
"""
