"""The backlog gives the parser parts in which at most one request ends."""

from __future__ import annotations

import pytest

from spikeserve.service.inference.decoding.memory import MemoryBudget
from spikeserve.service.process.backlog import MAX_PART_BYTES, Backlog

HEADERS = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


def backlog(data: bytes = b"") -> Backlog:
    made = Backlog(MemoryBudget(2**20))
    made.add(data)
    return made


def parts(of: Backlog) -> list[bytes]:
    """Take parts until one is empty."""
    return [bytes(part) for part in iter(lambda: bytes(of.take(0)), b"")]


def test_a_part_ends_with_the_headers() -> None:
    received = backlog(HEADERS * 3 + b"GET /")
    assert parts(received) == [HEADERS, HEADERS, HEADERS, b"GET /"]
    assert len(received) == 0


def test_a_part_is_the_body_where_its_length_is_known() -> None:
    body = b"\r\n\r\n\r\n"
    received = backlog(body[:4])
    assert bytes(received.take(6)) == body[:4]
    received.add(body[4:] + HEADERS)
    assert bytes(received.take(2)) == body[4:]
    assert bytes(received.take(0)) == HEADERS


def test_a_part_ends_with_a_chunked_body_whatever_its_chunks_hold() -> None:
    body = b"6\r\n\r\n\r\n\r\n\r\n" + b"1\r\n\r\r\n" + b"0;a=b\r\nX: y\r\n\r\n"
    taken = parts(backlog(CHUNKED + body + HEADERS))
    assert taken[0] == CHUNKED
    assert taken[-1] == HEADERS
    assert b"".join(taken[1:-1]) == body


@pytest.mark.parametrize("split", range(1, 5))
def test_the_end_of_a_request_ends_a_part_although_it_arrives_in_two_pieces(split: int) -> None:
    # The last bytes of the first request must not become the beginning of the second one's part.
    received = backlog(HEADERS[:-split])
    taken = parts(received)
    received.add(HEADERS[-split:] + HEADERS)
    taken += parts(received)
    assert taken == [HEADERS[:-4], b"\r\n\r\n", HEADERS]


@pytest.mark.parametrize("before", range(MAX_PART_BYTES - 5, MAX_PART_BYTES + 2))
def test_a_part_is_short_and_ends_with_no_piece_of_the_end_of_a_request(before: int) -> None:
    taken = parts(backlog(b"x" * before + b"\r\n\r\n" + HEADERS))
    assert taken[-1] == HEADERS
    assert taken[-2].endswith(b"\r\n\r\n")
    assert max(map(len, taken)) <= MAX_PART_BYTES


def test_bytes_that_were_taken_are_neither_held_nor_reserved_once_it_is_released() -> None:
    received = backlog(HEADERS * 100)
    received.reserve()
    assert received.budget.reserved == 100 * len(HEADERS)
    received.take(0)
    received.release()
    assert received.budget.reserved == 0
    assert len(received.data) == len(received) == 99 * len(HEADERS)
    received.clear()
    assert not received
