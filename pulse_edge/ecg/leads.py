"""Names and codes of leads."""

from __future__ import annotations

import re
import unicodedata

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# Words before a lead's name in English, German, French, Spanish, Portuguese, Italian and Swedish.
_WORDS = (
    "lead|ableitung|brustwand(?:ableitung)?|d[eé]rivation|derivaci[oó]n|deriva[cç][aã]o"
    "|derivazione|avledning"
)
# A hyphen that touches the word on its left separates; any other is a minus: -aVR is aVR inverted.
_LEAD_NAME = re.compile(
    rf"(?:MDC[_ ]ECG[_ ]LEAD[_ ]|(?:(?:ECG|EKG)[\s_]*)?(?:(?:{_WORDS})-|(?:{_WORDS})?[\s_:.]*))"
    r"(?:(?P<limb>III|II|I)|D\s?(?P<d>III|II|I|[123])|a?\s?V\s?(?P<augmented>[RLF])"
    r"|[VC]\s?0?(?P<chest>[1-6]))\s*(?:\(.*\))?",
    re.IGNORECASE,
)
# The number of a lead in MDC (ISO/IEEE 11073-10101) and in SCP-ECG (EN 1064); PS3.16 CID 3001.
_BY_NUMBER = dict(zip((1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), LEADS, strict=True))
# MDC as "2:61", MDC as one number of 32 bits (2 << 16 | 61), SCP-ECG as "5.6.3-9-61".
_CODE = re.compile(r"2:(\d{1,5})|(131\d{3})|5\.6\.3-9-(\d{1,5})")
_MDC_LEADS = 2 << 16
_SHOWN = 12  # names in a message
_LONGEST = 24  # characters of a name in a message


def canonical_lead(name: str) -> str:
    """The name of `LEADS` for a usual spelling: "Lead-I (Einthoven)", "C1", "MDC_ECG_LEAD_V1".

    Any other name stays, without spaces and NULs at its ends. "-aVR", "V3R" and "V7" are other
    leads.
    """
    name = name.strip(" \t\r\n\v\f\0\xa0")
    match = _LEAD_NAME.fullmatch(unicodedata.normalize("NFKC", name))
    if match is None:
        return name
    if limb := match["limb"] or match["d"]:
        return "I" * int(limb) if limb.isdigit() else limb.upper()
    if augmented := match["augmented"]:
        return f"aV{augmented.upper()}"
    return f"V{match['chest']}"


def lead_of_code(code: str) -> str | None:
    """The lead that a code of MDC or SCP-ECG means.

    Returns:
        A name of `LEADS`; "" for another lead's code; None if the code is of another scheme, or 0,
        which stands for any lead.
    """
    match = _CODE.fullmatch(code)
    if match is None:
        lead = canonical_lead(code)
        return lead if lead in LEADS else None
    number = int(match[1] or match[3] or int(match[2]) - _MDC_LEADS)
    return _BY_NUMBER.get(number, "") if number else None


def shown_names(names: list[str] | tuple[str, ...]) -> str:
    """Names from a file for a message: few, short, and without characters that do not print."""
    shown = [
        "".join(letter if letter.isprintable() else "?" for letter in name[:_LONGEST]) or "unnamed"
        for name in names[:_SHOWN]
    ]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more
