"""JPEGs with OpenCV, which decodes and resizes them faster than Pillow does, to almost the same pixels."""

from pathlib import Path
from typing import Any

import numpy as np

_END = b"\xff\xd9"
# Beyond it so short a filter blurs too little.
_MOST_SHRUNK = 2.5


def opencv() -> Any:
    """OpenCV.

    Raises:
        ImportError: If it is not installed; says how to get it.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError('Decoding with OpenCV needs it: pip install "keras-remos[opencv]"') from error
    return cv2


def decode_jpeg(file: Path, own: tuple[int, int], part: int, turned: int, size: tuple[int, int]) -> np.ndarray | None:
    """A JPEG as a picture of one size, turned upright.

    Args:
        file: The file.
        own: Its own width and height.
        part: It is decoded at one over that of its size: 1, 2, 4 or 8.
        turned: How it is to be turned, as EXIF numbers it; 1 is upright.
        size: `(height, width)` of the picture.

    Returns:
        uint8 of shape `(height, width, 3)`; `None` for what is better left to Pillow, as a file that does not end.
    """
    cv2 = opencv()
    data = file.read_bytes()
    is_even = not (own[0] % part or own[1] % part)
    if not data.endswith(_END) or not (is_even or turned == 1):
        return None
    how = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    # Turned here: OpenCV looks in fewer places for how.
    mode = how.get(part, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if decoded is None:
        return None
    decoded = _upright(decoded, turned)
    sides = decoded.shape[:2] if is_even else (own[1] / part, own[0] / part)
    down, across = (had / wanted for had, wanted in zip(sides, size, strict=True))
    if max(down, across) > _MOST_SHRUNK:
        return None
    if max(down, across) > 1:
        decoded = cv2.sepFilter2D(decoded, -1, _blur(across), _blur(down), borderType=cv2.BORDER_REPLICATE)
    if is_even:
        resized = cv2.resize(decoded, size[::-1], interpolation=cv2.INTER_LINEAR)
    else:
        # The last row or column is only in part one of the image's.
        places = np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        resized = cv2.warpAffine(decoded, places, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB))


def _upright(pixels: np.ndarray, turned: int) -> np.ndarray:
    """Turned as EXIF numbers it: 2, 4, 5 and 7 are mirrored, and 5 to 8 lie on a side."""
    if turned in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if turned in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turned in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _blur(shrunk: float) -> np.ndarray:
    """What makes linear interpolation blur as Pillow does, whose triangles grow with the distance of the pixels.

    The variance of a triangle of half-width w is w * w / 6, that of these three weights twice the outer one.
    """
    outer = max(shrunk * shrunk - 1, 0) / 12
    return np.array([outer, 1 - 2 * outer, outer], np.float32)
