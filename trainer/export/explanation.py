"""An export's description in words: from a picture to the model's input, and from its outputs to an answer."""

from __future__ import annotations

from shards.pictures.decode import DecodeOptions
from trainer.contract.compute.exported import INPUT, OUTPUTS, TensorFacts
from trainer.contract.decision.conformal import ConformalSets
from trainer.contract.decision.decision import Decision
from trainer.contract.decision.operating_point import NEVER, OperatingPoint
from trainer.contract.preprocess import LONGEST, PreprocessSpec
from trainer.contract.task import THRESHOLD

_FILTERS = {
    "bilinear": "bilinear, antialiased: a triangle with a radius of 1 pixel",
    "bicubic": "bicubic, antialiased: the cubic with a = -0.5 and a radius of 2 pixels",
}
_PASSES = (
    "(of the new size if a side shrinks, of the old size if it grows), at pixel centres, weights summing to 1; "
    "the width first, then the height, each rounded to integers 0..255; torch does the same for uint8 on a CPU"
)
_LUMINANCE = {
    1: "take the luminance 0.2989 R + 0.587 G + 0.114 B, 32-bit floats, rounded down: white becomes 254",
    2: "take the luminance (19595 R + 38470 G + 7471 B + 32768) / 65536, in integers, rounded down",
}
"""Text by version of the rule."""
_EVEN = "rounded to the nearest integer, halves to even"


def describe_tensors(spec: PreprocessSpec, num_classes: int, num_features: int) -> dict[str, list[TensorFacts]]:
    """Return `inputs` and `outputs` of an export."""
    colours = "RGB, channels first" if spec.channels == 3 else "luminance"
    images = TensorFacts(
        name=INPUT,
        dtype="uint8",
        shape=["batch", spec.channels, spec.size, spec.size],
        meaning=f"pictures after the steps: {colours}, 0..255; normalisation is inside the model",
    )
    meanings = ("a number for each class, the input of answer_steps", "the input of the model's head")
    outputs = [
        TensorFacts(name=name, dtype="float32", shape=["batch", width], meaning=meaning)
        for name, width, meaning in zip(OUTPUTS, (num_classes, num_features), meanings, strict=True)
    ]
    return {"inputs": [images], "outputs": outputs}


def describe_steps(spec: PreprocessSpec) -> list[str]:
    """Return the steps from a picture file to the model's input, in words.

    >>> describe_steps(PreprocessSpec(size=64))[-1]
    'channels first, uint8, 0..255; do not normalise: the model does'
    """
    steps = _describe_decoding(spec.decode)
    if spec.max_side is not None:
        steps.append(
            f"shrink a picture whose longer side is above {spec.max_side} pixels: each side times {spec.max_side} / "
            f"longer side, {_EVEN}, at least 1; Lanczos, antialiased, as Pillow's resize(..., LANCZOS, "
            "reducing_gap=2.0), which first takes the mean of boxes whose sides are half the scale, rounded down"
        )
    if spec.channels == 1:
        steps.append(_LUMINANCE[spec.luminance])
    fits = {"stretch": _describe_stretch, "crop": _describe_crop, "letterbox": _describe_letterbox}
    steps += fits[spec.policy](spec, f"{_FILTERS[spec.interpolation]} {_PASSES}")
    return [*steps, "channels first, uint8, 0..255; do not normalise: the model does"]


def _describe_decoding(options: DecodeOptions) -> list[str]:
    frames = "use the first frame or page" if options.frames == "first" else "reject several frames or pages"
    if options.gray_range is None:
        how = (
            "LO..HI is 0..65535, less if the file states its white, the file's window for DICOM; 32-bit values "
            "outside 0..65535, and floats, are rejected"
        )
    else:
        how = "LO..HI is {:g}..{:g}, and values outside are clipped".format(*options.gray_range)
    return [
        f"{frames}; reject a damaged picture, or one with more than {options.max_pixels:,} pixels",
        "reduce deeper values (16-bit gray or colour, 32-bit, float, DICOM) to 8 bits: (v - LO) * 255 / (HI - LO), "
        f"{_EVEN}; {how}; alpha is scaled from 0..65535; a TIFF in which 0 is white is inverted",
        "rotate the picture upright by the orientation in its EXIF, else in its XMP",
        f"convert to RGB: transparency is composited over RGB {options.background} at 8 bits; CMYK is converted by its "
        "embedded profile to sRGB, else by R = (255 - C) * (255 - K) / 255, rounded, and so on; gray gives "
        "three equal channels; no other profile is applied",
    ]


def _describe_stretch(spec: PreprocessSpec, how: str) -> list[str]:
    return [f"resize both sides to {spec.size} pixels, without keeping the aspect ratio; {how}"]


def _describe_crop(spec: PreprocessSpec, how: str) -> list[str]:
    shorter = max(spec.resize or spec.size, spec.size)
    rounded = "rounded down" if spec.rounding == "down" else _EVEN
    return [
        f"if a side is more than {LONGEST} times the other, cut equal amounts off both ends, to {LONGEST} times",
        f"resize the shorter side to {shorter} pixels and the longer one in proportion, {rounded}; {how}",
        f"take the centre square of {spec.size} pixels: its first row and column are (side - {spec.size}) / 2, {_EVEN}",
    ]


def _describe_letterbox(spec: PreprocessSpec, how: str) -> list[str]:
    return [
        f"resize the longer side to {spec.size} pixels and the shorter one in proportion, {_EVEN}, at least 1; {how}",
        f"pad to a square of {spec.size} pixels with the value {spec.fill}, the picture in its centre: "
        f"({spec.size} - side) / 2, rounded down, above and to the left",
    ]


def describe_answer(decision: Decision, classes: list[str]) -> list[str]:
    """Return the steps from logits and features to the endpoint's answer, in words.

    >>> describe_answer(Decision(temperature=2.0), ["a", "b"])[0]
    'divide the logits by the temperature 2.0'
    """
    steps = []
    if decision.temperature is not None:
        steps.append(f"divide the logits by the temperature {decision.temperature!r}")
    if decision.priors is not None:
        pairs = zip(classes, decision.priors.deploy, decision.priors.train, strict=True)
        shares = ", ".join(f"{name}: ln({new!r} / {old!r})" for name, new, old in pairs)
        steps.append(f"add to each the logarithm of its class share at deployment over that in training: {shares}")
    steps += _describe_one(decision) if decision.task.is_exclusive else _describe_each(decision)
    reasons = []
    if decision.conformal is not None:
        steps.append(_describe_set(decision.conformal))
        reasons.append("the set does not have exactly one class")
    if decision.ood is not None:
        steps.append(
            "ood_score: divide the features by their Euclidean length, subtract centre, multiply by the matrix "
            "whitening from the right; take the least squared Euclidean distance to a row of means; all are in the "
            "safetensors file named by `detector`"
        )
        reasons.append(f"ood_score is above {decision.ood.threshold!r}")
    if decision.abstain_below is not None:
        reasons.append(f"no class has the probability {decision.abstain_below!r}")
    if decision.fitted is not None:
        steps.append(f"abstain: {', or '.join(reasons) if reasons else 'never'}; the label is given anyway")
    return steps


def _describe_one(decision: Decision) -> list[str]:
    softmax = "probabilities: softmax over the classes, in 64-bit floats"
    if decision.point is None:
        return [softmax, "label: the most probable class; on a tie the first in `classes`"]
    rest = "the most probable of the other classes, on a tie the first in `classes`"
    return [softmax, f"label: {_describe_point(decision.point)}, otherwise {rest}"]


def _describe_point(point: OperatingPoint) -> str:
    if point.threshold >= NEVER:
        return f"never {point.positive}"
    return f"{point.positive} if its probability is at least {point.threshold!r}"


def _describe_each(decision: Decision) -> list[str]:
    own = [_describe_point(point) for point in decision.points or []]
    rest = f"every {'other ' if own else ''}class whose own probability is at least {THRESHOLD}"
    return [
        "probabilities: the sigmoid of each, in 64-bit floats; they need not sum to 1",
        f"labels: {'; '.join([*own, rest])}",
        "label: the most probable of these, null if there are none",
    ]


def _describe_set(sets: ConformalSets) -> str:
    scores = {
        "lac": "1 minus its probability",
        "aps": "the sum of the probabilities from the largest down to its own, ties in the order of `classes`",
    }
    thresholds = ", ".join(map(repr, sets.thresholds))
    own = "" if sets.class_samples is None else ", each fitted to the pictures of its class,"
    return (
        f"set: every class whose score is at most its threshold + 1e-9, the most probable first; the score is "
        f"{scores[sets.score]}; thresholds{own} in the order of `classes`: {thresholds}"
    )
