"""The size that an image file announces, for the formats that Pillow unpacks or makes room for when it opens them."""

HEAD = 32  # bytes that tell


def announced_size(head: bytes) -> tuple[int, int] | None:
    """Width and height from the first HEAD bytes of a PNG or WebP file; None where another reader has to tell."""
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
