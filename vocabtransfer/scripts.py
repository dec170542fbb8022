"""Unicode scripts of characters and of whole token lists, as small codes that index `SCRIPTS`."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import regex
from numpy.typing import NDArray

# ISO 15924 codes in a fixed order: commonly written scripts first, so that most look-ups end early. Position 0 stands
# for characters that belong to no script of their own (punctuation, digits, emoji, combining marks, unassigned).
_LIST = (
    "Zyyy Latn Cyrl Hani Arab Hang Hira Kana Deva Grek Hebr Thai Geor Armn Beng Taml Telu Gujr Guru Knda Mlym Sinh "
    "Mymr Khmr Laoo Tibt Ethi Mong Cher Cans Thaa Syrc Copt Bopo Orya Yiii Tfng Nkoo Vaii Adlm Olck Mtei Cakm Brai "
    "Runr Ogam Goth Glag Java Bali Sund Lana Talu Tale Lisu Limb Lepc Batk Bugi Cham Kali Rjng Saur Sylo Tavt Phag "
    "Tglg Hano Buhd Tagb Bamu Samr Mand Linb Lina Lyci Cari Ital Perm Ugar Xpeo Dsrt Shaw Osma Osge Elba Aghb Vith "
    "Cprt Armi Palm Nbat Hatr Phnx Lydi Mero Merc Khar Sarb Narb Mani Avst Prti Phli Phlp Orkh Hung Rohg Yezi Sogo "
    "Sogd Ougr Chrs Elym Brah Kthi Sora Mahj Shrd Khoj Mult Sind Gran Newa Tirh Sidd Modi Takr Ahom Dogr Wara Diak "
    "Nand Zanb Soyo Pauc Bhks Marc Gonm Gong Maka Kawi Xsux Cpmn Egyp Hluw Mroo Tnsa Bass Hmng Medf Plrd Tang Nshu "
    "Kits Dupl Sgnw Hmnp Toto Wcho Nagm Mend Todr Gara Tutg Sunu Gukh Krai Onao"
)
SCRIPTS: tuple[str, ...] = tuple(_LIST.split())

_UNKNOWN = 255
_codes = np.full(0x110000, _UNKNOWN, dtype=np.uint8)


def character_scripts(points: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the script code of each Unicode code point (same shape); ``SCRIPTS[code]`` is its ISO 15924 name."""
    codes = _codes[points]
    unseen = np.unique(points[codes == _UNKNOWN])
    if len(unseen):
        _look_up(unseen)
        codes = _codes[points]
    return codes


def dominant_scripts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return for each text the code of the script most of its letters are in (ties: the lower code), 0 for none."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    scripts = character_scripts(np.frombuffer(joined, dtype=np.uint32)).astype(np.int64)
    owners = np.repeat(np.arange(len(texts)), lengths)
    written = scripts != 0
    pairs, counts = np.unique(owners[written] * len(SCRIPTS) + scripts[written], return_counts=True)
    owners, scripts = np.divmod(pairs, len(SCRIPTS))
    # Sorted so that the winner of each text is written last: by text, then count, then falling code.
    order = np.lexsort((-scripts, counts, owners))
    result = np.zeros(len(texts), dtype=np.uint8)
    result[owners[order]] = scripts[order]
    return result


def _look_up(points: NDArray[np.uint32]) -> None:
    """Fill the table for code points not seen before, one script after the other over what is still unknown."""
    _codes[points] = 0
    left = points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for code, script in enumerate(SCRIPTS[1:], start=1):
        try:
            pattern = regex.compile(rf"\p{{Script={script}}}+")
        except regex.error:  # a script younger than the installed regex module
            continue
        found = "".join(pattern.findall(left))
        if found:
            _codes[np.frombuffer(found.encode("utf-32-le"), dtype=np.uint32)] = code
            left = pattern.sub("", left)
        if not left:
            break


def chinese_variants(text: str) -> tuple[int, int]:
    """Return how many characters of a text are written so in simplified and in traditional Chinese alone.

    Told by the two old standards: GB 2312 has the simplified characters, Big5 the traditional ones, and what stands in
    both, or in neither, says nothing.

    >>> chinese_variants("这些国家"), chinese_variants("這些國家"), chinese_variants("人人生而自由")
    ((2, 0), (0, 2), (0, 0))
    """
    kinds = [_chinese_variant(character) for character in text]
    return kinds.count(1), kinds.count(2)


@lru_cache(1 << 15)
def _chinese_variant(character: str) -> int:
    if not "\u3400" <= character <= "\u9fff":
        return 0
    simplified, traditional = (_encodes(character, codec) for codec in ("gb2312", "big5"))
    return (1 if simplified else 2) if simplified != traditional else 0


def _encodes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
