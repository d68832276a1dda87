"""Decode one picture within limits: an RGB image that shows what a viewer shows, or a reason why not.

Pictures come from anywhere, so nothing is trusted: bytes, format and pixels are checked from the header, before
memory is given to pixels. Transparent parts are composited on white, 16-bit grey is scaled (not clipped), of an
animation the first frame is taken, EXIF rotation is applied; colour profiles are not. Damage inside a JPEG's
compressed data that still parses cannot be told from a picture (libjpeg only warns).
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_SCANS = 256
"""Of a progressive JPEG; real ones have about ten, and each costs a pass over all pixels."""

_OPAQUE = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"}
_SEE_THROUGH = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION, _BITS, _PHOTOMETRIC = 274, 258, 262  # TIFF and EXIF tags
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """A picture that is not decoded; `str(error)` is the reason, for the quarantine."""


def decode(data: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the picture in `data` as a loaded RGB image, upright; raise BadImage(reason) if it is none."""
    if not data:
        raise BadImage("the picture is empty (0 bytes)")
    if len(data) > max_bytes:
        raise BadImage(f"the picture has {len(data):,} bytes, more than {max_bytes:,}")
    try:
        with _open(data, max_pixels) as image:
            image.load()
            return _upright(_rgb(image), _orientation(image))
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds on damaged bytes: OSError, SyntaxError, struct.error…
        raise BadImage(f"the picture is damaged or cut short: {error or type(error).__name__}") from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        names = ", ".join(FORMATS)
        raise BadImage(f"the bytes are no picture that alray reads ({names}): they begin with {data[:8]!r}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"the picture has too many pixels: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f"the picture has {width:,} × {height:,} pixels, more than {max_pixels:,}")
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
        raise BadImage(f"the JPEG has {data.count(bytes([0xFF, 0xDA])):,} scans, more than {MAX_SCANS}")
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _grey_16(image).convert("RGB")
    if image.mode in _SEE_THROUGH or (image.mode in _OPAQUE and "transparency" in image.info):
        return _on_white(image)
    if image.mode in _OPAQUE:
        return image.convert("RGB")
    raise BadImage(f"the picture's pixels are of kind {image.mode} ({image.format}), which has no fixed white")


def _on_white(image: Image.Image) -> Image.Image:
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _grey_16(image: Image.Image) -> Image.Image:
    """Scale grey of 9 to 16 bits to 8, so that its white is white."""
    tags = getattr(image, "tag_v2", {})
    white = 2 ** int(tags.get(_BITS, (16,))[0]) - 1
    value_HW = np.asarray(image).astype(np.int64)
    grey_HW = (np.clip(value_HW, 0, white) * 255 + white // 2) // white
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns only 8 bits round
        grey_HW = 255 - grey_HW
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey_HW[value_HW == key] = 255
    return Image.fromarray(grey_HW.astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture with damaged EXIF is still a picture: viewers show it as it is stored
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
