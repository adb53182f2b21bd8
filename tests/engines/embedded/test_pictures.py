"""Pictures as tokens: the same one has the same ids, none is cut in two, and files that are no images are told."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.embedded.pictures.picture import (
    Picture,
    PicturePart,
    part_of,
    text_before,
    vectors_of,
    whole_parts,
)
from gristmill.engines.embedded.pictures.picture_prompt import PictureMarks
from gristmill.engines.errors import EngineError
from gristmill.wire.chat import ContentPart, Message


def part(number: int, vectors: int) -> PicturePart:
    return PicturePart(bytes([number]) * 32, 0, np.full((vectors, 2), number, np.float32))


def test_tokens_of_a_picture_spell_its_vectors() -> None:
    one, other = part(1, 3), part(2, 2)
    assert one.tokens != other.tokens
    assert all(token < 0 and part_of(token) == one.key for token in one.tokens)
    assert part_of(7) is None
    found = vectors_of([*other.tokens, one.tokens[2]])
    assert found[:, 0].tolist() == [2, 2, 1]
    assert part(1, 3).tokens == one.tokens


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=8),
    st.integers(0, 80),
    st.integers(1, 40),
)
def test_no_picture_is_cut_in_two(runs: list[tuple[bool, int]], start: int, count: int) -> None:
    parts = [part(number, length) for number, (_, length) in enumerate(runs)]
    tokens = [
        token
        for (is_text, length), each in zip(runs, parts, strict=True)
        for token in ([1] * length if is_text else each.tokens)
    ]
    borders = {
        place for place in range(len(tokens) + 1)
        if not 0 < place < len(tokens) or tokens[place] >= 0 or part_of(tokens[place]) != part_of(tokens[place - 1])
    }  # fmt: skip
    start = max(border for border in borders if border <= min(start, len(tokens) - 1))
    count = min(count, len(tokens) - start)
    found = whole_parts(tokens, start, count)
    assert found > 0 and start + found in borders
    # No more than asked for, but for a picture that it begins with.
    assert found <= count or all(part_of(token) == part_of(tokens[start]) for token in tokens[start : start + found])


def test_where_the_first_picture_is() -> None:
    one = part(3, 2)
    assert text_before([1, 2, *one.tokens, 3]) == 2
    assert text_before([1, 2]) == 2


class Camera:
    def look(self, data: bytes) -> Picture:
        seen = part(len(data), 2)
        return Picture(data.hex(), [11, *seen.tokens, 12], [seen])


def test_marks_stand_where_images_were_and_lead_back_to_them() -> None:
    marks = PictureMarks(Camera(), 100)
    image = ContentPart("image_url", image_url={"url": "data:image/png;base64,QUJD"})
    given_ = [
        Message("system", "x"),
        Message("user", [ContentPart("text", "a"), image, ContentPart("text", "b"), image]),
    ]
    messages, pictures = marks.mark(given_)
    assert len(pictures) == 2
    pieces = marks.split(messages[1].text())
    assert pieces[0::2] == ["a", "b", ""]
    assert [each.digest for each in pieces[1::2] if isinstance(each, Picture)] == ["414243"] * 2
    # What looks like a mark of another process is a text.
    assert PictureMarks(Camera(), 100).split(messages[1].text()) == [messages[1].text()]


def test_no_more_is_looked_at_than_the_context_holds() -> None:
    looked: list[bytes] = []

    class Counting(Camera):
        def look(self, data: bytes) -> Picture:
            looked.append(data)
            return super().look(data)

    image = ContentPart("image_url", image_url={"url": "data:image/png;base64,QUJD"})
    with pytest.raises(EngineError) as refused:
        PictureMarks(Counting(), 10).mark([Message("user", [image] * 1000)])
    assert refused.value.code == "context_length_exceeded"
    assert len(looked) == 3


def test_image_files_are_read_as_a_person_sees_them() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="the extra 'llama-cpp' is not installed")
    from gristmill.engines.embedded.pictures.image_file import read_image

    for form in ("PNG", "WEBP", "GIF", "JPEG"):
        file = io.BytesIO()
        pillow.new("RGB", (4, 2), (200, 0, 0)).save(file, form)
        pixels = read_image(file.getvalue())
        assert pixels.shape == (2, 4, 3) and abs(int(pixels[0, 0, 0]) - 200) < 10
    clear = io.BytesIO()
    pillow.new("RGBA", (1, 1), (0, 0, 0, 0)).save(clear, "PNG")
    assert read_image(clear.getvalue()).tolist() == [[[255, 255, 255]]]
    turned = io.BytesIO()
    exif = pillow.Exif()
    exif[0x0112] = 6
    pillow.new("RGB", (4, 2)).save(turned, "JPEG", exif=exif)
    assert read_image(turned.getvalue()).shape == (4, 2, 3)


def test_a_small_file_of_very_many_pixels_is_refused_before_it_is_read() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="the extra 'llama-cpp' is not installed")
    from gristmill.engines.embedded.pictures.image_file import read_image

    for side in (7_000, 20_000):
        bomb = io.BytesIO()
        pillow.new("1", (side, side)).save(bomb, "PNG")
        assert len(bomb.getvalue()) < 10**6
        with pytest.raises(EngineError, match="too many pixels, at most 40,000,000") as refused:
            read_image(bomb.getvalue())
        assert refused.value.status == 400
