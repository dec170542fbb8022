"""Damaged and strange inputs made from real ones: bytes, JSON values, headers of tensors, packed files."""

import bz2
import gzip
import json
import lzma
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import zstandard

#: Values that a field may be given whatever it was.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 10**30),
    *(-(2**63), 0.0, -0.5, 1e-300, 1e308, float("nan"), float("inf"), "", "0", "abc", "\0", "../../etc/passwd"),
    *("/", ".", "C:\\", "a\nb", "\ud800", "\ufeff", "é", "e\u0301", "x" * 300, "<unk>", "float32"),
    *("LlamaForCausalLM", [], [None], [[]], [0], ["a"], [1, "a"], {}, {"a": None}, {"": {}}, [[[[[]]]]]),
    *(["a"] * 300, list(range(300))),
)
BITS: tuple[bytes, ...] = (
    *(b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\r\n", b"\t"),
    *(b",", b'"', b"'", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"PK\x03\x04", b"PAR1", b"|||", b"<", b"&#x0;", b"{"),
    *(b"]", b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"9" * 40, b"-1", b"1e999", b"NaN", " \u200c\u0301".encode()),
    "\u2028".encode(),
)


def mutated_bytes(draw: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change bytes here and there: cut, repeat, drop, exchange, overwrite, insert, join with another input."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        size = len(made)
        at, length = draw.randint(0, size), draw.choice((1, 1, 2, 4, 8, 64, max(1, size // 4)))
        match draw.randrange(9):
            case 0:
                del made[at:]
            case 1:
                del made[at : at + length]
            case 2:
                made[at:at] = made[at : at + length] * draw.choice((1, 2, 30))
            case 3 if size:
                made[min(at, size - 1)] ^= 1 << draw.randrange(8)
            case 4:
                made[at : at + length] = draw.randbytes(length)
            case 5:
                made[at:at] = draw.choice(BITS)
            case 6:
                made[at : at + length] = draw.choice(BITS)
            case 7 if others:
                other = draw.choice(others)
                made[at:] = other[draw.randint(0, len(other)) :]
            case 8:
                numbers = list(re.finditer(rb"-?\d+", bytes(made)))
                if numbers:
                    found = draw.choice(numbers)
                    made[found.start() : found.end()] = str(draw.choice([v for v in VALUES if type(v) is int])).encode()
    return bytes(made)


def mutated_text(draw: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change a text as bytes, or write it in another encoding or with other line ends."""
    kind = draw.randrange(8)
    if kind < 5:
        return mutated_bytes(draw, data, others)
    text = data.decode("utf-8", "replace")
    if kind == 5:
        return text.encode(draw.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1251", "utf-7")), "replace")
    if kind == 6:
        return text.replace("\n", draw.choice(("\r\n", "\r", "", "\n\n", "\u2028", "\0\n"))).encode()
    lines = text.split("\n")
    draw.shuffle(lines)
    return "\n".join(line * draw.choice((0, 1, 1, 1, 2, 300)) for line in lines[:50]).encode()


def mutated_json(draw: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Give fields of a JSON document other values, drop, rename and move them; one in eight is damaged as bytes."""
    if draw.randrange(8) == 0:
        return mutated_bytes(draw, data, others)
    document = json.loads(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        document = mutated_value(draw, document)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def mutated_value(draw: random.Random, value: Any) -> Any:
    """Return a document with one place changed, anywhere in it."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.75:
            return {**value, key: mutated_value(draw, value[key])}
        rest = {k: v for k, v in value.items() if k != key}
        return draw.choice(
            (rest, {**rest, key + "x": value[key]}, {**value, draw.choice(("", "vocab_size", "type")): value[key]})
        )
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        changed = [*value[:at], mutated_value(draw, value[at]), *value[at + 1 :]]
        return draw.choice(
            (changed, changed, changed, value[:at] + value[at + 1 :], value + value[at : at + 1], value[::-1])
        )
    if type(value) is int and draw.random() < 0.4:
        return value + draw.choice((-1, 1, 1000, -value, 10**6))
    return draw.choice(VALUES)


def mutated_safetensors(draw: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change the header of a safetensors file and keep its length right, or damage the bytes."""
    if draw.randrange(3) == 0:
        return mutated_bytes(draw, data[: 1 << 16], others)
    size = int.from_bytes(data[:8], "little")
    header = mutated_json(draw, data[8 : 8 + size])
    length = len(header) if draw.randrange(6) else draw.choice((0, len(header) + 9, 2**40, 2**63))
    return struct.pack("<Q", length) + header + data[8 + size :]


def mutated_gguf(draw: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change the counts, lengths and types in a GGUF header, where every field begins with one of them."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if draw.random() < 0.4:
            made = bytearray(mutated_bytes(draw, bytes(made), others))
            continue
        # Keys of metadata stand behind their lengths, values behind their types.
        keys = list(
            re.finditer(rb"(?:general|llama|tokenizer|blk|token_embd|output)[a-z0-9_.]*", bytes(made[: 1 << 16]))
        )
        at = draw.choice(
            [4, 8, 16, *(m.start() - 8 for m in keys), *(m.end() for m in keys), *(m.end() + 4 for m in keys)]
        )
        form = draw.choice(("<I", "<Q"))
        limit = 2**32 - 1 if form == "<I" else 2**64 - 1
        number = draw.choice((0, 1, 3, 8, 9, 13, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)) & limit
        made[at : at + struct.calcsize(form)] = struct.pack(form, number)
    return bytes(made)


def packed(draw: random.Random, data: bytes, kind: str) -> bytes:
    """Pack an input as its suffix says; half of the packed ones are damaged."""
    pack: dict[str, Callable[[bytes], bytes]] = {
        **{".gz": lambda raw: gzip.compress(raw, 1, mtime=0), ".bz2": bz2.compress, ".xz": lzma.compress},
        ".zst": zstandard.ZstdCompressor().compress,
    }
    whole = pack[kind](data)
    return mutated_bytes(draw, whole) if draw.random() < 0.5 else whole
