"""What comes of a network today where that is not yet what is wanted; a line goes when its network comes in."""

from __future__ import annotations

from tests.zoo.registry import Entry, Outcome, refused

TODAY: dict[str, Outcome] = {
    "snntorch-rleaky-conv": refused("conv2d_channels: a recurrent connection is full"),
    "snntorch-bntt": refused("'lif1' takes 'norm.0' first and 'norm.1' in its call 1: the steps are not copies of"),
    "snntorch-alpha": refused("Alpha): its class: no rule converts it"),
    "snntorch-exoplanet": refused("expected an input of (channels, length), but it has shape 32"),
    "neurobench-nehar": refused("'conv1' takes samples of 6 reshaped to 6×1, which has no"),
    "spikingjelly-skip-and": refused("torch.Tensor.mul multiplies two signals, which has no"),
    "spikingjelly-skip-iand": refused("torch.Tensor.__rsub__ has no"),
    "spikingjelly-shared-cat": refused("torch.cat joins samples side by side, which has no"),
    "spikingjelly-qif-eif": refused("EIFNode): its class: no rule converts it"),
    "spikingjelly-spikformer": refused(
        "'blocks.0.attn.qkv_conv_bn.0' takes samples of 16×4×4 reshaped to 16×16, which has"
    ),
    "spikingjelly-qkformer": refused(
        "'stage1.0.attn.qk_conv_bn.0' takes samples of 8×8×8 reshaped to 8×64, which has no"
    ),
    "norse-conv-net": refused("torch.Tensor.sub subtracts, which has no"),
    "norse-speech-commands": refused("torch.Tensor.sub subtracts, which has no"),
    "norse-lsnn": refused("torch.Tensor.sub subtracts, which has no"),
    "norse-memory": refused("torch.cat joins samples side by side, which has no"),
    "norse-lif-adex": refused("LIFAdExCell): its class: no rule converts it"),
    "norse-refractory": refused("LIFRefracCell): its class: no rule converts it"),
}


def expected(entry: Entry) -> Outcome:
    """Return what comes of a network today."""
    return TODAY.get(entry.name, entry.wanted)
