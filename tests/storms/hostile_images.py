"""Image files made to hang a decoder, to exhaust memory or to be read as what they are not."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.storms.payloads import Place

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
FIRST = "0000.png"  # an image that every template has


def picture(place: Place, width: int = 40, height: int = 40, mode: str = "RGB") -> Image.Image:
    """Random pixels."""
    pixels = np.frombuffer(place.random.randbytes(width * height * 3), dtype=np.uint8)
    return Image.fromarray(pixels.reshape(height, width, 3)).convert(mode)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(place: Place, *chunks: bytes, before: bytes = b"IDAT", **options: Any) -> bytes:
    """A whole PNG file with more chunks in front of its first one of a kind."""
    content = encoded(picture(place, mode=options.pop("mode", "RGB")), "PNG", **options)
    at = content.index(before) - 4
    return content[:at] + b"".join(chunks) + content[at:]


def segment(marker: int, data: bytes) -> bytes:
    """One segment of a JPEG file."""
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(data)) + data


def with_segments(place: Place, *segments: bytes, **options: Any) -> bytes:
    """A whole JPEG file with more segments after its first two bytes."""
    content = encoded(picture(place), "JPEG", **options)
    return content[:2] + b"".join(segments) + content[2:]


def riff(kind: bytes, data: bytes) -> bytes:
    """One chunk of a WebP file."""
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def extended_webp(place: Place, flags: int, *chunks: bytes, width: int = 40, height: int = 40) -> bytes:
    """An extended WebP file around a whole image."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + riff(b"VP8X", bytes((flags, 0, 0, 0)) + sides) + b"".join(chunks)
    body += encoded(picture(place), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


# ---- files that are not what they seem


def _any_format(place: Place) -> bytes:
    return encoded(picture(place), place.random.choice(FORMATS))


def _truncated(place: Place) -> bytes:
    content = _any_format(place)
    return content[: place.random.randrange(len(content))]


def _flipped(place: Place) -> bytes:
    content = bytearray(_any_format(place))
    for _ in range(place.random.choice((1, 3, 30))):
        content[place.random.randrange(min(len(content), 400))] = place.random.randrange(256)
    return bytes(content)


def _repeated(place: Place) -> bytes:
    content = _any_format(place)
    return content * place.random.randrange(2, 2000)


def _other_format(place: Place) -> bytes:
    kind = place.random.choice(("GIF", "TIFF", "ICO", "JPEG2000", "TGA", "PCX", "PDF", "EPS", "DDS", "MPO", "IM"))
    return encoded(picture(place), kind)


def _large_header(place: Place) -> bytes:
    """Each format announces all the pixels that it can."""
    jpeg = encoded(picture(place), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    bitmap = encoded(picture(place), "BMP")
    return place.random.choice(
        (
            jpeg[:frame] + b"\xff\xff\xff\xff" + jpeg[frame + 4 :],
            bitmap[:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + bitmap[26:],
            bitmap[:18] + struct.pack("<ii", 60_000, 60_000) + bitmap[26:],
            b"P6 99999999 99999999 255\n" + bytes(100),
            b"P6 4000000000 1 255\n" + bytes(100),
            b"P3 9000 9000 255\n" + b"1 " * 100,
            extended_webp(place, 0, width=1 << 24, height=1 << 24),
            extended_webp(place, 0x10, width=16383, height=16383),
            extended_webp(place, 2, riff(b"ANIM", bytes(6)), width=9400, height=9400),
            b"RIFF\x24\0\0\0WEBPVP8L\x18\0\0\0\x2f\xff\xff\xff\x0f" + bytes(19),
        )
    )


# ---- bombs


def _text_bomb(place: Place) -> bytes:
    """Texts of a PNG file that unpack to gigabytes, before or after the pixels."""
    packed = zlib.compress(bytes(300 << 20), 9)
    text = place.random.choice(
        (chunk(b"zTXt", b"a\0\0" + packed), chunk(b"iTXt", b"a\0\1\0\0\0" + packed), chunk(b"iCCP", b"a\0\0" + packed))
    )
    return with_chunks(place, text * place.random.choice((1, 20)), before=place.random.choice((b"IDAT", b"IEND")))


def _many_texts(place: Place) -> bytes:
    """Just below the limit of each, many times over."""
    return with_chunks(place, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9)) * 1500)


def _long_profile(place: Place) -> bytes:
    profile = segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000))
    return place.random.choice(
        (
            with_segments(place, profile * 1500),
            extended_webp(place, 0x20, riff(b"ICCP", bytes(100 << 20))),
            with_chunks(place, chunk(b"eXIf", b"II*\0" + bytes(100 << 20))),
        )
    )


def _many_chunks(place: Place) -> bytes:
    return place.random.choice(
        (
            with_chunks(place, chunk(b"abCd", b"") * 300_000),
            with_chunks(place, chunk(b"IDAT", b"") * 300_000),
            with_segments(place, segment(0xE1, b"") * 300_000),
            with_segments(place, segment(0xFE, b"x") * 300_000),
            extended_webp(place, 0, riff(b"JUNK", b"") * 300_000),
        )
    )


def _scan_bomb(place: Place) -> bytes:
    """A progressive JPEG file whose last scan, without data, comes again and again over a large image."""
    content = encoded(Image.new("L", (9000, 9000), 99), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last : last + 10] * 300_000 + b"\xff\xd9"


def _animated(place: Place) -> bytes:
    frames = [picture(place, 16, 16) for _ in range(place.random.choice((2, 200)))]
    kind = place.random.choice(("GIF", "WEBP", "PNG"))
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def _thin(place: Place) -> bytes:
    sides = place.random.choice(((1, 1), (8000, 1), (1, 8000), (60_000, 2), (1, 65_000), (2, 1), (16_000, 1)))
    kind = place.random.choice(("JPEG", "PNG", "BMP", "PPM"))
    return encoded(Image.new("RGB", sides, (1, 2, 3)), kind)


def _line(place: Place) -> bytes:
    """As many pixels as are allowed, in one row."""
    return encoded(Image.new("L", (90_000_000, 1)), "PNG", compress_level=1)


def _padded(place: Place) -> bytes:
    return extended_webp(place, 0, riff(b"JUNK", bytes(60 << 20)))


def _comment(place: Place) -> bytes:
    return b"P6 #" + bytes(100 << 20) + b"\n40 40 255\n" + bytes(4800)


# ---- modes and metadata


def _odd_mode(place: Place) -> bytes:
    sixteen = Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16))
    return place.random.choice(
        (
            encoded(sixteen, "PNG"),
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, 6, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(40 * 321)))
            + chunk(b"IEND", b""),
            encoded(picture(place, mode="CMYK"), "JPEG"),
            encoded(picture(place, mode="1"), "PNG"),
            encoded(picture(place, mode="LA"), "PNG"),
            b"P5 40 40 65535\n" + bytes(3200),
            b"Pf\n40 40\n-1.0\n" + bytes(6400),
            b"P7\nWIDTH 40\nHEIGHT 40\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n" + bytes(6400),
        )
    )


def _palette(place: Place) -> bytes:
    """Palettes that are too short, transparency that is too long, both and none."""
    content = encoded(picture(place, mode="P"), "PNG", transparency=place.random.randrange(256))
    at = content.index(b"PLTE") - 4
    length = int.from_bytes(content[at : at + 4], "big")
    rest = content[at + 12 + length :]
    size = place.random.choice((0, 2, 3, 3000))
    palette = chunk(b"PLTE", bytes(size)) if size else b""
    return content[:at] + palette + chunk(b"tRNS", bytes(place.random.choice((0, 1, 5000)))) + rest


def _metadata(place: Place) -> bytes:
    """Orientation and other tags that are wrong, endless or point at themselves."""
    loop = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    turned = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, place.random.randrange(70), 0) + bytes(4)
    many = b"MM\0*\0\0\0\x08\xff\xff" + place.random.randbytes(60_000)
    tags = b"Exif\0\0" + place.random.choice((loop, turned, many, place.random.randbytes(3000)))
    return place.random.choice(
        (
            with_segments(place, segment(0xE1, tags)),
            with_segments(place, segment(0xE2, b"MPF\0" + tags[6:])),
            with_segments(place, segment(0xED, b"Photoshop 3.0\0" + tags)),
            with_chunks(place, chunk(b"eXIf", tags[6:])),
            extended_webp(place, 8, riff(b"EXIF", tags[6:])),
        )
    )


# ---- what is no file, and names


def _put(place: Place, content: bytes) -> None:
    path = place.images / "train" / "class0" / FIRST
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _content(make: Callable[[Place], bytes]) -> Callable[[Place], None]:
    return lambda place: _put(place, make(place))


def _no_file(place: Place) -> None:
    path = place.images / "train" / "class0" / FIRST
    path.unlink()
    kind = place.random.choice(("pipe", "socket", "loop", "folder", "link", "secret"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with closing(socket.socket(socket.AF_UNIX)) as server:
            descriptor = os.open(path.parent, os.O_RDONLY)  # the whole path may be too long for a socket
            server.bind(f"/proc/self/fd/{descriptor}/{FIRST}")
            os.close(descriptor)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("../class1")
    else:
        path.symlink_to(place.random.choice(("/etc/passwd", "/proc/self/mem", "/proc/self/environ", "/dev/random")))


NAMES = (
    *(b"new\nline.png", b"\xff\xfe.png", b"x" * 251 + b".png", b"\x1b[2J\x1b]0;x\x07.png", b"[red]bold[/red].png"),
    *(b"%s{0}${x}.png", b"-rf.png", b" .png", b"=HYPERLINK(1).png", "‮gnp.png".encode(), b"\r.png"),
)


def _named(place: Place) -> None:
    """An image, or none, under a name that is not harmless."""
    path = os.fsencode(place.images / "train" / "class0") + b"/" + place.random.choice(NAMES)
    Path(os.fsdecode(path)).write_bytes(place.random.choice((b"", _any_format(place))))


def _half_are_damaged(place: Place) -> None:
    for path in sorted((place.images / "train" / "class1").iterdir()):
        path.write_bytes(_truncated(place))


def _evaluation(place: Place) -> None:
    (place.images / "val" / "class2" / "0002.png").write_bytes(_truncated(place))


IMAGES: dict[str, Callable[[Place], None]] = {
    "image is truncated": _content(_truncated),
    "image has wrong bytes": _content(_flipped),
    "image is repeated": _content(_repeated),
    "image has the name of another format": _content(_any_format),
    "image is of a format that is not read": _content(_other_format),
    "image announces all that it can": _content(_large_header),
    "image with texts that unpack to gigabytes": _content(_text_bomb),
    "image with a thousand texts": _content(_many_texts),
    "image with a profile of 100 MB": _content(_long_profile),
    "image of 300,000 chunks": _content(_many_chunks),
    "image of 300,000 scans": _content(_scan_bomb),
    "image is animated": _content(_animated),
    "image is thin": _content(_thin),
    "image is one row of 90 million": _content(_line),
    "image is padded": _content(_padded),
    "image with a comment of 100 MB": _content(_comment),
    "image of another depth": _content(_odd_mode),
    "image with a wrong palette": _content(_palette),
    "image with wrong metadata": _content(_metadata),
    "image is no file": _no_file,
    "image has a hostile name": _named,
    "class of damaged images": _half_are_damaged,
    "evaluation image is truncated": _evaluation,
}
