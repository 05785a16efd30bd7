"""The client that blocks is the one that is awaited, without `async` and `await`."""

from tests.unasync import MADE, made


def test_the_client_that_blocks_is_made_of_the_one_that_is_awaited() -> None:
    assert {path: path.read_text() for path in MADE.glob("*.py")} == made(), "run python -m tests.unasync"
