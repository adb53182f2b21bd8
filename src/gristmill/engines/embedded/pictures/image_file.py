"""From an image file's bytes to its pixels, with Pillow: PNG, JPEG, WebP and GIF, of which the first picture counts."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.errors import EngineError, invalid_value
from gristmill.extras import require

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
#: Of pixels; a model looks at less than one of a million. A small file may hold very many.
MOST_PIXELS = 40_000_000


def read_image(data: bytes) -> NDArray[np.uint8]:
    """Shape (height, width, 3), RGB, turned as the file says; what is transparent is white. Raises EngineError."""
    image, operations = require("PIL.Image", "llama-cpp"), require("PIL.ImageOps", "llama-cpp")
    try:
        with image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise _too_large()
            turned = operations.exif_transpose(opened).convert("RGBA")
            white = image.new("RGBA", turned.size, "white")
            return np.ascontiguousarray(image.alpha_composite(white, turned).convert("RGB"), np.uint8)
    except EngineError:
        raise
    except image.DecompressionBombError:
        raise _too_large() from None
    except Exception as error:
        # The library raises what its decoders do, for a hostile file anything.
        reason = f"the image cannot be read ({type(error).__name__}); it must be a whole {', '.join(FORMATS)} file"
        raise invalid_image(reason) from None


def invalid_image(reason: str) -> EngineError:
    return invalid_value("messages", f"Invalid image in 'messages': {reason}.")


def _too_large() -> EngineError:
    return invalid_image(f"the image has too many pixels, at most {MOST_PIXELS:,} are possible")
