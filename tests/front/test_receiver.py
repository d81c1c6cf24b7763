"""What is kept of a body while it comes, and let go when no more of it will come."""

from __future__ import annotations

import weakref

import pytest

from app.front.http.receiver import UploadInPieces, UploadInPlace


@pytest.mark.parametrize("ending", ["cut", "no room"])
def test_pieces_of_an_upload_that_ends_early_are_let_go_although_somebody_refers_to_it(ending: str) -> None:
    pieces: list[weakref.ref[memoryview]] = []

    def allocate(size: int) -> memoryview | None:
        if pieces and ending == "no room":
            return None
        piece = memoryview(bytearray(size))
        pieces.append(weakref.ref(piece))
        return piece

    upload, ends = UploadInPieces(1 << 20, allocate), list[bool]()
    upload.on_end = ends.append
    room = upload.room()
    assert room is not None
    assert not upload.received(len(room))
    del room
    assert pieces[0]() is not None
    if ending == "cut":
        upload.end(complete=False)
    else:
        assert upload.room() is None
    assert (ends, upload.has_ended, upload.lacks_room) == ([False], True, ending == "no room")
    assert pieces[0]() is None


def test_the_place_of_an_upload_that_ends_early_is_let_go_although_somebody_refers_to_it() -> None:
    place = memoryview(bytearray(1 << 20))
    reference = weakref.ref(place)
    upload = UploadInPlace(1 << 20, place, lambda count: True)
    del place
    assert reference() is not None
    upload.end(complete=False)
    assert reference() is None
    assert upload.room() is None
