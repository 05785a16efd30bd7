"""Pictures in files, read by Pillow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.training.data.numpy_files import explained
from spikeserve.training.files import memory, require_plain

FORMATS = {".bmp": "BMP", ".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


def read_pictures(paths: Sequence[Path]) -> list[NDArray[Any]]:
    """Return each picture as (channels, height, width), uint8: one channel where all are grey, else red, green, blue.

    Raises InvalidData for one of more than 8 bits, one that Pillow calls a bomb, and more than the memory holds.
    """
    pictures, size = [], 0
    for path in paths:
        with explained(path, "a picture"), warnings.catch_warnings():
            from PIL import Image  # here, since it is an extra

            warnings.simplefilter("ignore")  # of palettes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            require_plain(path, memory())
            with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"its pixels are {image.mode}, expected 8 bits for each channel")
                size += math.prod(image.size) * np.dtype(np.float32).itemsize * len(image.getbands())
                if size > memory():
                    raise ValueError(f"with those before it takes {size:,} bytes, more than the memory")
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
                pictures.append(np.atleast_3d(pixels).transpose(2, 0, 1))
    channels = max(map(len, pictures))
    return [np.broadcast_to(pixels, (channels, *pixels.shape[1:])) for pixels in pictures]
