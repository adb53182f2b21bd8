"""From the images of a chat's messages to tokens in its prompt, by marks that the template carries through."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import weakref

import msgspec

from gristmill.engines.embedded.pictures.picture import Eyes, Picture
from gristmill.engines.embedded.tokenizer import TextEncoder
from gristmill.engines.errors import EngineError, context_length_exceeded, invalid_value, unsupported_parameter
from gristmill.wire.chat import ContentPart, Message

_DATA_URL = re.compile(r"data:(image/[\w.+-]+)?;base64,", re.I)
#: Of an image in base64: OpenAI takes 20 MB.
MOST_CHARACTERS = 28 * 2**20


class PictureMarks:
    """Looks at images, and finds their marks in a text again. A mark is nothing that a message could hold by chance or
    by intent."""

    def __init__(self, eyes: Eyes, context_length: int) -> None:
        """Nothing is looked at any more once the pictures alone have more tokens than the context."""
        self._eyes = eyes
        self._context_length = context_length
        self._word = secrets.token_hex(8)
        self._between = re.compile(f"<{self._word}:([0-9a-f]+)>")
        self._seen: weakref.WeakValueDictionary[str, Picture] = weakref.WeakValueDictionary()

    def mark(self, messages: list[Message]) -> tuple[list[Message], list[Picture]]:
        """The messages with marks as texts in the places of images. The pictures must be kept as long as tokens of
        theirs are to be computed. Raises EngineError."""
        pictures: list[Picture] = []
        return [self._mark_message(index, message, pictures) for index, message in enumerate(messages)], pictures

    def _mark_message(self, index: int, message: Message, pictures: list[Picture]) -> Message:
        if not isinstance(message.content, list):
            return message
        content = []
        for place, part in enumerate(message.content):
            if part.type == "image_url":
                picture = self._eyes.look(_data(part, f"messages[{index}].content[{place}].image_url"))
                pictures.append(picture)
                tokens = sum(len(each.tokens) for each in pictures)
                if tokens > self._context_length:
                    raise context_length_exceeded(tokens, 1, self._context_length)
                self._seen[picture.digest] = picture
                content.append(ContentPart("text", f"<{self._word}:{picture.digest}>"))
            else:
                content.append(part)
        return msgspec.structs.replace(message, content=content)

    def split(self, text: str) -> list[str | Picture]:
        """The text at its marks."""
        pieces: list[str | Picture] = list(self._between.split(text))
        pieces[1::2] = [self._seen[str(digest)] for digest in pieces[1::2]]
        return pieces


class PictureEncoder:
    """A tokenizer of texts with marks."""

    def __init__(self, encoder: TextEncoder, marks: PictureMarks) -> None:
        self._encoder = encoder
        self._marks = marks
        self.chat_template = encoder.chat_template
        self.bos_token = encoder.bos_token
        self.eos_token = encoder.eos_token

    @property
    def size(self) -> int:
        return self._encoder.size

    @property
    def longest_token(self) -> int:
        return self._encoder.longest_token

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        tokens: list[int] = []
        for number, piece in enumerate(self._marks.split(text)):
            if isinstance(piece, Picture):
                tokens += piece.tokens
            elif piece:
                tokens += self._encoder.encode(piece, special_tokens and not number)
        return tokens


def refuse_images(messages: list[Message], engine: str) -> None:
    """Raises EngineError for a part that is no text, where the model has no eyes."""
    for index, message in enumerate(messages):
        for part in message.content if isinstance(message.content, list) else ():
            if part.type != "text":
                raise unsupported_parameter(f"messages[{index}].content ({part.type})", engine)


def _data(part: ContentPart, place: str) -> bytes:
    url = part.image_url.get("url") if isinstance(part.image_url, dict) else part.image_url
    head = _DATA_URL.match(url) if isinstance(url, str) else None
    if head is None or not isinstance(url, str):
        raise _invalid(
            place,
            "the embedded engine fetches no images. Send the image itself, as a URL of the form "
            "'data:image/png;base64,...'",
        )
    if len(url) > MOST_CHARACTERS:
        raise _invalid(place, f"the image has {len(url):,} characters; at most {MOST_CHARACTERS:,} are possible")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(place, f"its data are no base64 ({error})") from None


def _invalid(place: str, reason: str) -> EngineError:
    message = f"Invalid value for '{place}': {reason}."
    return invalid_value(place, message)
