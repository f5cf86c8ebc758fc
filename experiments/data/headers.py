"""What an image file would cost, told from its bytes before a decoder sees them."""

import re
from typing import BinaryIO

HEAD = 32  # bytes that tell a size
PIECE = 2**20  # bytes read at a time
SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # a scan's marker, length and components
SHORTEST_SCAN = 8  # bytes
LONGEST_HEADER = 2**16  # bytes of a PPM file, which Pillow reads one by one
COMMENT = re.compile(rb"#[^\r\n]*")


def announced_size(head: bytes) -> tuple[int, int] | None:
    """Width and height from the first HEAD bytes of a PNG or WebP file; None where another reader has to tell.

    These are the formats of which Pillow unpacks texts, or makes room for the whole image, when it opens a file.
    """
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR" and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp(head[12:16], head[20:])
    return None


def _webp(kind: bytes, data: bytes) -> tuple[int, int] | None:
    """From the first chunk: the canvas of an extended file, or the only image's header (RFC 9649, section 2)."""
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        sides = int.from_bytes(data[1:5], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    return None


def is_endless(head: bytes) -> bool:
    """Whether the first LONGEST_HEADER bytes of a PPM file hold no more than comments and white space."""
    return len(head) == LONGEST_HEADER and len(COMMENT.sub(b"", head).split(maxsplit=3)) < 3


def scans_of(jpeg: BinaryIO) -> int:
    """How many times a JPEG file has its decoder go over the whole image."""
    count, left = 0, b""
    while piece := jpeg.read(PIECE):
        piece = left + piece
        count += len(SCAN.findall(piece))
        left = piece[-4:]  # one byte less than what is found
    return count
