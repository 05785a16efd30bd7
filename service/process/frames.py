"""Where the frames of a WebSocket end, told by their headers alone, so that few of them are parsed at once."""

from __future__ import annotations

MAX_FRAMES = 64  # of one part: parsing and answering as many pings takes some milliseconds

MASKED, LENGTH = 0x80, 0x7F  # the bits of a frame's second byte
LONG_LENGTHS = {126: 2, 127: 8}  # the bytes of a length that does not fit into these bits
MASK_BYTES = 4


class Frames:
    """Divides what one client sends into parts of at most MAX_FRAMES frames, of which the last may not be complete."""

    def __init__(self) -> None:
        self.begun = 0  # the bytes so far of a frame that is not complete
        self.left = 0  # the bytes of it that are still to come

    def part_end(self, data: bytes, start: int) -> int:
        """Return where the part ends that begins at `start`, behind what was divided before.

        The beginning of a header whose rest has not come belongs to the next part, so the part may be empty.
        """
        at, end = start, len(data)
        for _ in range(MAX_FRAMES):
            if not self.left:
                self.begun, self.left = 0, _frame_bytes(data, at)
            taken = min(self.left, end - at)
            at, self.begun, self.left = at + taken, self.begun + taken, self.left - taken
            if at == end or not taken:
                break
        if not self.left:
            self.begun = 0
        return at

    def has_part(self, data: bytes, start: int) -> bool:
        """Return whether there is more to parse than the beginning of a header."""
        return start < len(data) and (self.left > 0 or _frame_bytes(data, start) > 0)


def _frame_bytes(data: bytes, at: int) -> int:
    """Return the bytes of the frame that begins there, or 0 where its header is not complete."""
    if len(data) - at < 2:
        return 0
    second = data[at + 1]
    length = second & LENGTH
    long = LONG_LENGTHS.get(length, 0)
    header = 2 + long + (MASK_BYTES if second & MASKED else 0)
    if len(data) - at < header:
        return 0
    return header + (int.from_bytes(data[at + 2 : at + 2 + long]) if long else length)
