"""Image files written bit by bit, for what Pillow reads but does not write."""

import struct
import zlib


def png(bits: int, colour_type: int, width: int, rows: list[bytes], palette: bytes = b"") -> bytes:
    """Return a PNG of packed rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [chunk(b"IHDR", header)]
    if palette:
        chunks.append(chunk(b"PLTE", palette))
    chunks += [chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(
    bits: int,
    width: int,
    pixels: bytes,
    *,
    photometric: int = 1,
    sample_format: int = 1,
    extra: tuple[tuple[int, int, float], ...] = (),
) -> bytes:
    """Return a little-endian TIFF of one row; ``extra`` has (tag, type, value) of further tags."""
    short, long = 3, 4
    tags = [
        *((256, short, width), (257, short, 1), (258, short, bits), (259, short, 1)),
        *((262, short, photometric), (273, long, 8), (277, short, 1), (278, short, 1)),
        *((279, long, len(pixels)), (339, short, sample_format)),
        *extra,
    ]
    pixels += b"\0" * (len(pixels) % 2)
    file = struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels
    file += struct.pack("<H", len(tags))
    packing = {short: "<HHIH2x", long: "<HHII", 9: "<HHIi", 11: "<HHIf"}
    for tag, kind, value in sorted(tags):
        file += struct.pack(packing[kind], tag, kind, 1, value)
    return file + bytes(4)


def pgm(maximum: int, values: list[int]) -> bytes:
    """Return a binary PGM of one row."""
    width = 2 if maximum > 255 else 1
    content = b"".join(value.to_bytes(width, "big") for value in values)
    return b"P5\n%d 1\n%d\n" % (len(values), maximum) + content
