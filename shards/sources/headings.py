"""Column names as people spell them: with blanks and other case, typing errors, or synonyms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ROLES = ("path", "label", "split", "group", "weight")
"""The roles of columns for `pack`, which are also their standard names."""

_WIDTHLESS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\u2800\u3164\ufeff\uffa0"
)
"""Invisible characters that `str.strip` keeps: joiners, direction marks, byte order marks, fillers."""
_SPACES = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Characters that `str.strip` removes."""
BLANKS = _WIDTHLESS + _SPACES
"""Characters that `trim` removes."""
_UNSEEN = str.maketrans("", "", _WIDTHLESS)

_OTHER_WORDS = {
    "path": (
        "filepath filename file imagepath imagefile imagefilename imagename imageid imageindex image imgpath imgfile "
        "imgname imgid img fname picture photo uri url src name idcode id"
    ),
    "label": (
        "labelname class classname category categoryname target tag finding findinglabel diagnosis dx groundtruth gt "
        "annotation species breed classid categoryid labelid y"
    ),
    "split": (
        "subset set partition phase usage datasplit datasetsplit traintest trainvaltest train training istrain "
        "istraining isvalid isval isvalidation istest istesting"
    ),
    "group": (
        "groupid patient patientid patientname pid subject subjectid case caseid person personid participant "
        "participantid individual individualid study studyid lesion lesionid specimen specimenid slide slideid"
    ),
    "weight": "sampleweight imageweight exampleweight instanceweight lossweight",
}
_NO_SLIPS = frozenset({"height"})
"""One letter away from `weight`, but a common column of picture tables."""


def trim(text: str) -> str:
    """Return text without Unicode blanks and zero-width characters at its ends.

    >>> trim("\\ufeff label\\u00a0"), trim("\\u200btrain ")
    ('label', 'train')
    """
    return text.strip(BLANKS)


def clean(name: str) -> str:
    """Return a name as it looks: trimmed, without invisible characters.

    >>> clean(" la\\u200bbel")
    'label'
    """
    return trim(name.translate(_UNSEEN))


def fold(name: str) -> str:
    """Return a form that is equal for names that differ only in blanks, case and width.

    >>> fold(" Label"), fold("\uff30\uff41\uff54\uff48")
    ('label', 'path')
    """
    return clean(unicodedata.normalize("NFKC", name)).casefold()


def find_column(names: Sequence[str], wanted: str) -> list[int]:
    """Return the positions of the wanted name: with the same spelling, else the same look, else the same folded form.

    >>> find_column(["Label", "label"], "label"), find_column([" label", "Label"], "label")
    ([1], [0])
    """
    for spell in (str, clean, fold):
        found = [place for place, name in enumerate(names) if spell(name) == spell(wanted)]
        if found:
            return found
    return []


def rank_near(name: str, role: str) -> int | None:
    """Return how close a name is to a role: 0 for a typing error or a plural, 1 and more for a synonym; else None.

    >>> [rank_near(name, "split") for name in ("spilt", "Splits", "subset", "my_split", "site")]
    [0, 0, 1, 0, None]
    """
    parts = [part for part in re.split(r"[\W_]+", fold(name)) if part]
    key = "".join(parts)
    if _is_slip(key, role) or _is_slip(key.removesuffix("s"), role) or (role == "split" and role in parts):
        return 0
    words = _OTHER_WORDS[role].split()
    singular = [key, key.removesuffix("s"), key.removesuffix("es"), re.sub("ies$", "y", key)]
    places = [words.index(form) for form in singular if form in words]
    return 1 + min(places) if places else None


def _is_slip(key: str, role: str) -> bool:
    """Return whether a word is the role, or differs by one letter: missing, extra, replaced, or two swapped.

    >>> [_is_slip(key, "label") for key in ("label", "lable", "labell", "lael", "lavel", "level", "table")]
    [True, True, True, True, True, False, False]
    """
    if key in _NO_SLIPS:
        return False
    start = next((n for n, (a, b) in enumerate(zip(key, role, strict=False)) if a != b), min(len(key), len(role)))
    first, second = key[start:], role[start:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    return max(len(first), len(second)) <= 1 or (len(first) == 2 and first == second[::-1])
