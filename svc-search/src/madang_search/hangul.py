"""Hangul as it is typed: jamo, key by key, and the two keyboards that share the keys."""

import unicodedata
from itertools import pairwise

_LEADS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_TAILS: list[str] = ["", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"]
# Letters of two keys.
_TWO_KEYS = {
    **{
        "ㅘ": "ㅗㅏ",
        "ㅙ": "ㅗㅐ",
        "ㅚ": "ㅗㅣ",
        "ㅝ": "ㅜㅓ",
        "ㅞ": "ㅜㅔ",
        "ㅟ": "ㅜㅣ",
        "ㅢ": "ㅡㅣ",
    },
    **{
        "ㄳ": "ㄱㅅ",
        "ㄵ": "ㄴㅈ",
        "ㄶ": "ㄴㅎ",
        "ㄺ": "ㄹㄱ",
        "ㄻ": "ㄹㅁ",
        "ㄼ": "ㄹㅂ",
        "ㄽ": "ㄹㅅ",
    },
    **{"ㄾ": "ㄹㅌ", "ㄿ": "ㄹㅍ", "ㅀ": "ㄹㅎ", "ㅄ": "ㅂㅅ"},
}
_ONE_LETTER = {keys: letter for letter, keys in _TWO_KEYS.items()}
_FIRST, _LAST = ord("가"), ord("힣")

# The keys of the standard layout (KS X 5002), beside those of QWERTY.
_QWERTY = "qwertyuiopasdfghjklzxcvbnmQWERTOP"
_DUBEOLSIK = "ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔㅁㄴㅇㄹㅎㅗㅓㅏㅣㅋㅌㅊㅍㅠㅜㅡㅃㅉㄸㄲㅆㅒㅖ"
_TO_KOREAN = dict(zip(_QWERTY, _DUBEOLSIK, strict=True))
_TO_ENGLISH = {jamo: key.lower() for key, jamo in _TO_KOREAN.items()}

# What sounds alike and is written in each other's place: tense and plain consonants, ㅐ and ㅔ.
_FOLDS = str.maketrans("ㄲㄸㅃㅆㅉㅐㅒ", "ㄱㄷㅂㅅㅈㅔㅖ")

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def keys(text: str) -> str:
    """A text as its keys: Hangul as jamo, one a key, anything else in lower case.

    Half-typed and whole text agree: the keys of "붉" begin those of "불고기".
    """
    found = []
    for char in unicodedata.normalize("NFKC", text).lower():
        at = ord(char) - _FIRST
        if 0 <= at <= _LAST - _FIRST:
            jamo = _LEADS[at // 588] + _VOWELS[at % 588 // 28] + _TAILS[at % 28]
            found += [_TWO_KEYS.get(letter, letter) for letter in jamo]
        else:
            letter = _compatible(char)
            found.append(_TWO_KEYS.get(letter, letter))
    return "".join(found)


def folded(typed: str) -> str:
    """Keys with letters that sound alike made one: those of "떡뽁이" and "떡볶이" agree."""
    return typed.translate(_FOLDS).replace("ㅜㅔ", "ㅗㅔ").replace("ㅗㅣ", "ㅗㅔ")


def compose(typed: str) -> str:
    """Jamo put together to syllables as a keyboard does; anything else as it is."""
    out: list[str] = []
    letters = _merged_vowels(typed)
    at = 0
    while at < len(letters):
        lead, vowel = letters[at], letters[at + 1] if at + 1 < len(letters) else ""
        if lead not in _LEADS or not vowel or vowel not in _VOWELS:
            out.append(lead)
            at += 1
            continue
        at += 2
        tail = _tail(letters, at)
        at += len(_TWO_KEYS.get(tail, tail))
        code = (_LEADS.index(lead) * 21 + _VOWELS.index(vowel)) * 28 + _TAILS.index(tail)
        out.append(chr(_FIRST + code))
    return "".join(out)


def to_korean(text: str) -> str:
    """What the keys of a text give on the Korean keyboard: "rlacl" → "김치"."""
    return compose("".join(_TO_KOREAN.get(c, _TO_KOREAN.get(c.lower(), c)) for c in text))


def to_english(text: str) -> str:
    """What the keys of a text give on the English keyboard: "ㅔㅑㅋㅋㅁ" → "pizza"."""
    return "".join(_TO_ENGLISH.get(key, key) for key in keys(text))


def has_hangul(text: str) -> bool:
    """Whether a syllable or a jamo is in it."""
    return any("가" <= c <= "힣" or "ㄱ" <= c <= "ㅣ" or "ᄀ" <= c <= "ᇿ" for c in text)


def neighbours() -> dict[str, str]:
    """The keys beside each key, of both keyboards."""
    english = {key: "" for row in _ROWS for key in row}
    for row in _ROWS:
        for left, right in pairwise(row):
            english[left] += right
            english[right] += left
    for upper, lower in pairwise(_ROWS):
        for at, key in enumerate(lower):
            for other in upper[at : at + 2]:
                english[key] += other
                english[other] += key
    korean = {
        _TO_KOREAN[key]: "".join(_TO_KOREAN[other] for other in beside)
        for key, beside in english.items()
    }
    for shifted in _QWERTY[26:]:
        plain, tense = _TO_KOREAN[shifted.lower()], _TO_KOREAN[shifted]
        korean[tense] = korean[plain] + plain
        korean[plain] += tense
    return english | korean


def _compatible(char: str) -> str:
    """NFKC leaves lone jamo conjoining (U+11xx); this gives the letter by itself."""
    code = ord(char)
    if 0x1100 <= code <= 0x1112:
        return _LEADS[code - 0x1100]
    if 0x1161 <= code <= 0x1175:
        return _VOWELS[code - 0x1161]
    if 0x11A8 <= code <= 0x11C2:
        return _TAILS[code - 0x11A7]
    return {"\u111a": "ㅀ", "\u1121": "ㅄ"}.get(char, char)


def _merged_vowels(typed: str) -> list[str]:
    letters: list[str] = []
    for char in typed:
        both = _ONE_LETTER.get(letters[-1] + char) if letters and letters[-1] in _VOWELS else None
        if both:
            letters[-1] = both
        else:
            letters.append(char)
    return letters


def _tail(letters: list[str], at: int) -> str:
    """The consonants from a place on that end a syllable: none that the next one begins with."""
    ends: list[str] = []
    while at + len(ends) < len(letters) and len(ends) < 3:
        letter = letters[at + len(ends)]
        if letter not in _LEADS:
            break
        ends.append(letter)
    if at + len(ends) < len(letters) and letters[at + len(ends)] in _VOWELS and ends:
        ends.pop()
    both = _ONE_LETTER.get("".join(ends[:2])) if len(ends) >= 2 else None
    if both:
        return both
    return ends[0] if ends and ends[0] in _TAILS else ""
