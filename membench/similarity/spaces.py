"""The similarity spaces of image features: what counts as a copy there, and in which
bands copies are counted.
"""

from __future__ import annotations

from membench.types import Band, Space

# SIDE's bands; its lower end of "low" is not stated, 0.4 is ours. 0.5 is a copy
# (Somepalli et al., CVPR 2023).
_SSCD = (Band("high", 0.6, 1.0), Band("mid", 0.5, 0.6), Band("low", 0.4, 0.5))

# The papers that we know give no threshold for CLIP between images. Everything of one
# kind is alike to CLIP, so ours lie high.
_CLIP = (Band("high", 0.95, 1.0), Band("mid", 0.9, 0.95), Band("low", 0.85, 0.9))

#: name: bands, copy threshold, floor, source.
_SPACES = {
    "sscd": (_SSCD, 0.5, 0.35, "Pizzi et al. 2022, arXiv 2202.10261; bands of Chen et al. 2026"),
    "sscd-int8": (
        _SSCD,
        0.5,
        0.35,
        (
            "Pizzi et al. 2022, arXiv 2202.10261, in 8-bit integers; bands of Chen et al. 2026 for"
            " the original"
        ),
    ),
    "clip": (_CLIP, 0.95, 0.8, "Radford et al. 2021, arXiv 2103.00020; bands ours, from no paper"),
}

NAMES = tuple(_SPACES)


def pixel_space(size: int) -> Space:
    """Carlini's normalised distance on pixels: d < 1 is their copy, AMG (CVPR 2024)
    goes to 1.4, far below 1 is one to the eye.
    """
    return Space(
        id=f"normalised-l2/pixels{size}/alpha0.5/n50",
        higher_is_closer=False,
        bands=(Band("high", 0.0, 0.7), Band("mid", 0.7, 1.0), Band("low", 1.0, 1.4)),
        copy=1.0,
        floor=1.5,
        source="Carlini et al. 2023, arXiv 2301.13188",
    )


def space_of(name: str, features_id: str) -> Space:
    """The space of cosines, in [-1, 1], of the features ``name`` (``NAMES``), whose id
    says weights and preprocessing too.

    Bands and thresholds of sscd are those of SIDE (Chen et al., AAAI 2026) and
    Somepalli et al. (CVPR 2023). sscd-int8 takes the same: its cosines lie near SSCD's,
    but nobody has calibrated them. Those of clip are membench's own choice, from no
    paper and no measurement: compare detectors by them, and do not read them as a rate
    of copies. Raises ValueError for another name.
    """
    if name not in _SPACES:
        raise ValueError(f"no space of features {name!r}: known are {', '.join(NAMES)}")
    bands, copy, floor, source = _SPACES[name]
    return Space(
        id=f"cosine/{features_id}",
        higher_is_closer=True,
        bands=bands,
        copy=copy,
        floor=floor,
        source=source,
    )
