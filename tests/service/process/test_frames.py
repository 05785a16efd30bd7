"""What a WebSocket's client sends is divided where its frames end, however it was cut, and few of them at once."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from spikeserve.service.process.websockets import MAX_FRAMES, Frames

LONGEST_HEADER = 14
SIZES = st.lists(st.sampled_from([0, 1, 125, 126, 127, 300, 2**16 - 1, 2**16]), max_size=12)


def written(sizes: list[int], *, mask: bool = True) -> list[bytes]:
    """Return frames of so many bytes of payload, as the library writes them."""
    return [Frame(Opcode.BINARY, bytes(size)).serialize(mask=mask) for size in sizes]


@given(SIZES, st.lists(st.integers(1, 2**17)), st.booleans())
def test_what_is_left_is_the_beginning_of_a_header_and_a_frame_is_told_right(
    sizes: list[int], cuts: list[int], mask: bool
) -> None:
    frames = written(sizes, mask=mask)
    ends = [0, *accumulate(map(len, frames))]
    whole, incoming, at = b"".join(frames), Frames(), 0
    for come in [*(cut for cut in sorted(cuts) if cut < len(whole)), len(whole)]:
        while incoming.has_part(whole[:come], at):
            at = incoming.part_end(whole[:come], at)
        last = ends[bisect_right(ends, at) - 1]
        assert at == come or (at == last and come - at < LONGEST_HEADER)
        assert incoming.begun == at - last
        assert incoming.left == (ends[ends.index(last) + 1] - at if at > last else 0)
    assert at == len(whole)


def test_a_part_has_few_frames() -> None:
    content, incoming = b"".join(written([0] * 1000)), Frames()
    parts, at = 0, 0
    while at < len(content):
        end = incoming.part_end(content, at)
        assert end - at <= MAX_FRAMES * 6
        at, parts = end, parts + 1
    assert parts == 16  # of 64 frames, the last of 40
