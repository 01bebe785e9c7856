import pytest

from justenough.errors import BackendRejected
from justenough.wire.events import DONE, EventReader, event_of, is_end, is_one_event, payload_of


def test_events_of_all_line_ends_comments_and_several_lines() -> None:
    stream = (
        b"\xef\xbb\xbfdata: 1\r\n\r\n: keep-alive\n\nevent: x\rid: 7\rdata: 2\r\rdata:3\ndata: 4\ndata\n\n"
        b"data: \xff\n\nretry: 5\n\ndata: [DONE]\n\ndata: never ended"
    )
    assert EventReader().feed(stream) == ["1", "2", "3\n4\n", "\ufffd", DONE]


def test_a_byte_order_mark_before_each_event_is_no_part_of_it() -> None:
    reader = EventReader()
    assert reader.feed(b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n\xef\xbb") == ["1", "2"]
    assert reader.feed(b"\xbfdata: 3\n\n") == ["3"]


def test_an_event_without_end_is_refused_at_the_limit() -> None:
    reader = EventReader(limit=1000)
    assert reader.feed(b"data: " + b"x" * 990 + b"\n\n") == ["x" * 990]
    for _ in range(9):
        reader.feed(b"data: " + b"y" * 93 + b"\n")
    reader.feed(b"z" * 154)
    with pytest.raises(BackendRejected, match="larger than 1000 bytes"):
        reader.feed(b"z")


@pytest.mark.parametrize("payload", [b"[DONE]", b"[DONE] ", b"[DONE]\t"])
def test_the_end_of_a_stream_may_have_spaces_behind_it(payload: bytes) -> None:
    assert is_end(payload)
    (read,) = EventReader().feed_bytes(event_of(payload))
    assert is_end(read)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[DONE]x", b'"[DONE]"'])
def test_other_payloads_do_not_end_a_stream(payload: bytes) -> None:
    assert not is_end(payload)


def test_an_empty_data_line_is_an_empty_payload() -> None:
    assert EventReader().feed_bytes(b"data:\n\ndata: \n\ndata: 1\n\n") == [b"", b"", b"1"]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_comments_are_kept_as_events_where_they_are_wanted(size: int) -> None:
    stream = b": waiting\n\ndata: 1\n\n:\r\n\r\n: still\ndata: 2\n\n"
    reader, silent = EventReader(comments=True), EventReader()
    comments, payloads = b"", []
    for start in range(0, len(stream), size):
        payloads += reader.feed_bytes(stream[start : start + size])
        comments += reader.take_comments()
        silent.feed_bytes(stream[start : start + size])
    assert comments == b": waiting\n\n:\n\n: still\n\n"
    assert payloads == [b"1", b"2"]
    assert reader.take_comments() == silent.take_comments() == b""


def test_one_event_is_told_from_several_and_from_parts() -> None:
    event = event_of(b"{}")
    assert is_one_event(event)
    assert payload_of(event) == b"{}"
    for other in (event + event, event[:-1], event[1:], b"data: {}\r\n\r\n", b": x\n\n"):
        assert not is_one_event(other)
