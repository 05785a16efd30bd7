"""What comes of a network today where that is not yet what is wanted; a line goes when its network comes in."""

from __future__ import annotations

from tests.zoo.registry import Entry, Outcome, refused

TODAY: dict[str, Outcome] = {
    "snntorch-rate-coded": refused("torch.bernoulli draws at random"),
    "spikingjelly-qif-eif": refused("EIFNode): its class: no rule converts it"),
    "norse-lif-adex": refused("LIFAdExCell): its class: no rule converts it"),
}


def expected(entry: Entry) -> Outcome:
    """Return what comes of a network today."""
    return TODAY.get(entry.name, entry.wanted)
