"""Each kind of picture is decoded to the right pixels, or refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alray.pool.images import BadImage, decode

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def quarters(size: int = 32) -> Image.Image:
    """Red and green above, blue and white below: every turn and flip of it differs."""
    half = size // 2
    rgb_HWC = np.zeros((size, size, 3), np.uint8)
    rgb_HWC[:half, :half], rgb_HWC[:half, half:] = RED, GREEN
    rgb_HWC[half:, :half], rgb_HWC[half:, half:] = BLUE, WHITE
    return Image.fromarray(rgb_HWC)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters: above left, above right, below left, below right."""
    rgb_HWC = np.asarray(image)
    height, width, _ = rgb_HWC.shape
    places = [(1, 1), (1, 3), (3, 1), (3, 3)]
    return [tuple(int(v) for v in rgb_HWC[height * y // 4, width * x // 4]) for y, x in places]


def near(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]], within: int) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= within)


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for what Pillow does not write; `rows` begin with their filter byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), *more]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


# Decoded right


@pytest.mark.parametrize(
    ("format", "options", "within"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("GIF", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {}, 12),
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
    ],
)
def test_every_format_shows_its_colours(format: str, options: dict[str, Any], within: int) -> None:
    image = decode(encode(quarters(), format, **options))
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert near(corners(image), [RED, GREEN, BLUE, WHITE], within)


def test_lossless_pixels_are_exact() -> None:
    rgb_HWC = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    for format in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(np.asarray(decode(encode(Image.fromarray(rgb_HWC), format))), rgb_HWC)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP"])
def test_grey_is_the_same_in_three_channels(format: str) -> None:
    grey_HW = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    rgb_HWC = np.asarray(decode(encode(Image.fromarray(grey_HW), format)))
    assert np.array_equal(rgb_HWC[..., 0], rgb_HWC[..., 1]) and np.array_equal(rgb_HWC[..., 0], rgb_HWC[..., 2])
    assert np.abs(rgb_HWC[..., 0].astype(int) - grey_HW).max() <= (2 if format == "JPEG" else 0)


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(np.array([[True, False], [False, True]]))
    for format in ("PNG", "TIFF", "BMP"):
        assert np.asarray(decode(encode(bits, format)))[..., 1].tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    grey_HW = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    rgb_HWC = np.asarray(decode(encode(Image.fromarray(grey_HW), format)))
    assert rgb_HWC[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert np.array_equal(rgb_HWC[..., 0], rgb_HWC[..., 2])


def test_16_bit_grey_whose_white_is_zero_is_turned_round() -> None:
    data = encode(Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)), "TIFF")
    tag = struct.pack("<HHI", 262, 3, 1)  # photometric interpretation: 1 is "black is zero"
    assert data.count(tag + struct.pack("<H", 1)) == 1
    turned = data.replace(tag + struct.pack("<H", 1), tag + struct.pack("<H", 0))
    assert np.asarray(decode(data))[0, :, 0].tolist() == [0, 255]
    assert np.asarray(decode(turned))[0, :, 0].tolist() == [255, 0]


def test_a_transparent_16_bit_grey_shows_white() -> None:
    rows = b"\0" + struct.pack(">3H", 0, 1000, 65535)
    image = decode(png(3, 1, 16, 0, rows, (b"tRNS", struct.pack(">H", 1000))))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 255, 255]


def test_16_bit_colour_keeps_its_high_bytes() -> None:
    rows = b"\0" + struct.pack(">6H", 0xFFFF, 0, 0, 0x8000, 0x4000, 0x2000)
    assert np.asarray(decode(png(2, 1, 16, 2, rows)))[0].tolist() == [[255, 0, 0], [128, 64, 32]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_shows_its_colours(format: str) -> None:
    data = encode(quarters().convert("CMYK"), format, **({"quality": 95} if format == "JPEG" else {}))
    assert near(corners(decode(data)), [RED, GREEN, BLUE, WHITE], 6)


def test_an_inverted_adobe_cmyk_shows_its_colours() -> None:
    plain = encode(Image.merge("CMYK", [Image.new("L", (16, 16), v) for v in (0, 255, 255, 0)]), "JPEG")
    assert b"Adobe" in plain  # Pillow writes them as Adobe does: inverted, and marked so
    assert near(corners(decode(plain)), [RED] * 4, 4)


def test_a_palette_shows_its_colours() -> None:
    image = quarters().quantize(8)
    assert image.mode == "P"
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        assert corners(decode(encode(image, format))) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(format: str) -> None:
    image = quarters().quantize(8)
    blue = int(np.asarray(image)[-1, 0])
    assert corners(decode(encode(image, format, transparency=blue))) == [RED, GREEN, WHITE, WHITE]


def test_a_half_transparent_palette_is_composited_on_white() -> None:
    rows = b"\0" + bytes([0, 1])
    palette = (b"PLTE", bytes([*RED, *BLUE])), (b"tRNS", bytes([255, 128]))
    assert np.asarray(decode(png(2, 1, 8, 3, rows, *palette)))[0].tolist() == [[255, 0, 0], [127, 127, 255]]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_composited_on_white(format: str) -> None:
    rgba_HWC = np.zeros((16, 16, 4), np.uint8)
    rgba_HWC[:, :8] = (*RED, 255)
    rgba_HWC[:8, 8:] = (*BLACK, 0)
    rgba_HWC[8:, 8:] = (*BLACK, 51)  # a fifth of black over white is 204
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    image = decode(encode(Image.fromarray(rgba_HWC), format, **options))
    assert image.mode == "RGB"
    assert corners(image) == [RED, WHITE, RED, (204, 204, 204)]


def test_grey_with_alpha_is_composited_on_white() -> None:
    la_HWC = np.array([[[0, 255], [0, 0], [0, 51]]], dtype=np.uint8)
    assert np.asarray(decode(encode(Image.fromarray(la_HWC, "LA"), "PNG")))[0, :, 0].tolist() == [0, 255, 204]


def test_a_colour_key_becomes_white() -> None:
    data = encode(quarters(), "PNG", transparency=GREEN)
    assert corners(decode(data)) == [RED, WHITE, BLUE, WHITE]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (BLUE, RED, GREEN)]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 3
    assert corners(decode(data)) == [BLUE] * 4


TURNED = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],  # stored mirrored
    3: [WHITE, BLUE, GREEN, RED],  # stored upside down
    4: [BLUE, WHITE, RED, GREEN],
    5: [RED, BLUE, GREEN, WHITE],
    6: [BLUE, RED, WHITE, GREEN],  # a quarter turn clockwise shows it upright
    7: [WHITE, GREEN, BLUE, RED],
    8: [GREEN, WHITE, RED, BLUE],
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_rotation_is_applied(format: str, orientation: int) -> None:
    stored = quarters().resize((48, 32), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    image = decode(encode(stored, format, exif=exif, **options))
    assert image.size == ((48, 32) if orientation < 5 else (32, 48))
    assert near(corners(image), TURNED[orientation], 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_lose_the_picture() -> None:
    data = encode(quarters(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert near(corners(decode(data)), [RED, GREEN, BLUE, WHITE], 6)


def test_an_unknown_orientation_is_left_as_it_is() -> None:
    exif = Image.Exif()
    exif[274] = 99
    assert corners(decode(encode(quarters(), "PNG", exif=exif))) == TURNED[1]


def test_the_picture_does_not_need_its_bytes_any_more() -> None:
    image = decode(encode(quarters(), "JPEG"))
    assert type(image) is Image.Image
    assert image.copy().resize((4, 4)).size == (4, 4)


# Refused with a reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"not a picture at all", r"no picture that alray reads \(JPEG, PNG, .*\): they begin with b'not a pi'"),
        (b"\x89PNG\r\n\x1a\n", "damaged|no picture"),
        (b"\xff\xd8\xff\xe0", "damaged|no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that alray reads"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture that alray reads"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(data)


def test_a_format_that_is_not_listed_is_refused() -> None:
    for format in ("ICO", "PPM", "TGA"):
        with pytest.raises(BadImage, match="no picture that alray reads"):
            decode(encode(quarters(), format))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_a_picture_cut_short_is_refused(format: str, kept: float) -> None:
    noise_HWC = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise_HWC), format)
    with pytest.raises(BadImage, match=r"damaged or cut short|no picture|pixels"):
        decode(data[: int(len(data) * kept)])


def test_a_png_with_a_wrong_bit_is_refused() -> None:
    noise_HWC = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = bytearray(encode(Image.fromarray(noise_HWC), "PNG", compress_level=0))
    data[len(data) // 2] ^= 1  # in stored data only the checksum can tell
    with pytest.raises(BadImage, match="damaged or cut short"):
        decode(bytes(data))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about EXIF and tags it skips
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_random_damage_never_raises_anything_else(format: str) -> None:
    rng = np.random.default_rng(3)
    good = np.frombuffer(encode(quarters(), format), dtype=np.uint8)
    for _ in range(150):
        data = good.copy()
        data[rng.integers(0, len(data), 6)] = rng.integers(0, 256, 6)
        try:
            image = decode(data.tobytes(), max_pixels=1_000_000)
        except BadImage as error:
            assert str(error)
        else:
            assert image.mode == "RGB"


def test_too_many_bytes_are_refused_before_decoding() -> None:
    data = encode(quarters(), "BMP")
    with pytest.raises(BadImage, match=rf"has {len(data):,} bytes, more than 100$"):
        decode(data, max_bytes=100)
    decode(data, max_bytes=len(data))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    data = encode(quarters(), "PNG")
    with pytest.raises(BadImage, match=r"has 32 × 32 pixels, more than 1,023$"):
        decode(data, max_pixels=1023)
    decode(data, max_pixels=1024)


@pytest.mark.parametrize("side", [8_001, 12_000, 100_000])
def test_a_decompression_bomb_is_refused_from_its_header(side: int) -> None:
    bomb = png(side, side, 8, 2, b"\0" * 1000)
    assert len(bomb) < 200
    with pytest.raises(BadImage, match="pixels"):
        decode(bomb)


def test_a_bomb_in_a_text_chunk_is_refused() -> None:
    text = b"Comment\0\0" + zlib.compress(b"\0" * (64 * 2**20))
    with pytest.raises(BadImage, match="damaged or cut short"):
        decode(png(1, 1, 8, 2, b"\0" + bytes(3), (b"zTXt", text)))


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encode(quarters(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(BadImage, match=r"scans, more than 256"):
        decode(data[:-2] + scan * 300 + data[-2:])


@pytest.mark.parametrize("pixels", [np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)])
def test_pixels_without_a_fixed_white_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(BadImage, match=r"of kind [FI] \(TIFF\), which has no fixed white"):
        decode(encode(Image.fromarray(pixels), "TIFF"))
