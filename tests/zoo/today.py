"""What comes of a network today where that is not yet what is wanted; a line goes when its network comes in."""

from __future__ import annotations

from tests.zoo.registry import Entry, Outcome, refused

TODAY: dict[str, Outcome] = {
    "snntorch-rate-coded": refused("torch.bernoulli draws at random"),
}


def expected(entry: Entry) -> Outcome:
    """Import a network, and return its outcome today."""
    return TODAY.get(entry.name, entry.wanted)
