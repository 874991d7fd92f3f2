"""What a host remembers of visits is bounded: a terminal that floods faces cannot fill its memory."""

from __future__ import annotations

from runtime.asks import IMAGES_BYTES_MAX, VisitMemory

JPEG = bytes(192 * 1024)


def test_a_flood_of_faces_is_bounded_in_bytes_and_the_newest_are_kept() -> None:
    memory = VisitMemory()
    fit = IMAGES_BYTES_MAX // len(JPEG)
    for n in range(fit + 10):
        memory.put_image(str(n), JPEG)
        memory.put_image(str(n), JPEG)  # sent again: the same place
    kept = [n for n in range(fit + 10) if memory.take_image(str(n)) is not None]
    assert kept == list(range(10, fit + 10))
    memory.put_image("again", JPEG)
    assert memory.take_image("again") == JPEG
