"""TFRecord files, read without TensorFlow, checksums verified.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import functools
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# CRC-32C (Castagnoli), bit-reversed polynomial; the block is what one table look-up handles.
_CRC_POLYNOMIAL = 0x82F63B78
_CRC_BLOCK = 1024
# From a remainder of zero, these bytes lead to the all-ones remainder that CRC-32C starts from;
# with them, zeros in front change nothing and any length can be padded to whole blocks.
_CRC_ALL_ONES = b"Td\x1fd"
_CRC_MASK_DELTA = 0xA282EAD8


def read_tfrecords(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file, checksums verified.

    A record is its length (uint64), the length's checksum (uint32), the bytes, and their checksum;
    all little-endian, checksums masked CRC-32C.

    Raises:
      ValueError: if the file is cut short or a checksum does not fit.
    """
    with open(path, "rb") as file:
        while header := file.read(12):
            start = file.tell() - len(header)
            broken = f"{path} is broken at byte {start:,}: prepare or copy it again"
            if len(header) < 12 or _mask(crc32c(header[:8])) != struct.unpack("<I", header[8:])[0]:
                raise ValueError(broken)
            (length,) = struct.unpack("<Q", header[:8])
            record, checksum = file.read(length), file.read(4)
            if len(checksum) < 4 or _mask(crc32c(record)) != struct.unpack("<I", checksum)[0]:
                raise ValueError(broken)
            yield record


def crc32c(data: bytes) -> int:
    """Compute the CRC-32C checksum of some bytes.

    The checksum is linear over GF(2): each byte of a block contributes a table entry that depends
    on its value and its place only, so a block is one NumPy look-up and one XOR over it.
    """
    prefixed = _CRC_ALL_ONES + data
    values = np.zeros(-(-len(prefixed) // _CRC_BLOCK) * _CRC_BLOCK, np.uint8)
    values[-len(prefixed) :] = np.frombuffer(prefixed, np.uint8)
    by_place, carry = _crc_tables()
    blocks = by_place[np.arange(_CRC_BLOCK), values.reshape(-1, _CRC_BLOCK)]
    remainder = 0
    for block in np.bitwise_xor.reduce(blocks, axis=1).tolist():
        for place, byte in enumerate(remainder.to_bytes(4, "little")):
            block ^= carry[place][byte]
        remainder = block
    return remainder ^ 0xFFFFFFFF


@functools.cache
def _crc_tables() -> tuple[np.ndarray, list[list[int]]]:
    """Return what a byte contributes by place (block, 256), and the first four places as lists."""
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ (table & 1) * np.uint32(_CRC_POLYNOMIAL)
    by_place = np.empty((_CRC_BLOCK, 256), np.uint32)
    by_place[-1] = table
    for place in range(_CRC_BLOCK - 2, -1, -1):
        further = by_place[place + 1]
        by_place[place] = table[further & 0xFF] ^ (further >> 8)
    # The remainder so far acts as if it were XORed onto the next block's first four bytes.
    return by_place, [by_place[place].tolist() for place in range(4)]


def _mask(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF
