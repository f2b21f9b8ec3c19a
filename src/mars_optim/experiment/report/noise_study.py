"""Report of a noise study, in sentences and pictures; see ``experiment/noise_study.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from .figures.draw import legend, svg_element
from .figures.svg import standalone
from .figures.theme import ARMS, AXIS, MIN_SAVING

Study = dict[str, Any]
Point = dict[str, Any]
Numbers = dict[str, float | None]

FORMS = ("approx", "exact")
TINTS = {"approx": "#d55e00", "exact": "#009e73"}
LABELS = ("baseline", "candidate")


def noise_table(study: Study) -> str:
    """For a terminal: a line per stop of each arm, intervals in brackets."""
    head = ["step", "noise scale", "noise", "lag", "approx, %", "exact, %", "best gamma"]
    lines = []
    for arm in study["arms"]:
        rows = [head, *(_row(study, point) for point in arm["points"])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines.append(f"On {arm['name']}'s path, lr {arm['lr']:g}")
        lines += [
            "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    return "\n".join(
        [
            *lines,
            "noise scale in tokens; noise and lag: parts of the error of AdamW's momentum; approx "
            "and exact:",
            "what MARS's momentum makes of that error; best gamma: where approx's is least; "
            f"[{100 * study['confidence']:g} % interval]",
        ]
    )


def _row(study: Study, point: Point) -> list[str]:
    scale, momentum = total(point["noise"])["scale"], total(point["momentum"])
    plain, best = momentum["estimators"]["m_plain"], momentum["best_gamma"]
    whole = plain["error"]["value"]
    return [
        f"{point['step']:,}",
        in_tokens(scale, study["batch_tokens"]),
        f"{100 * plain['variance']['value'] / whole:.0f} %",
        f"{100 * plain['bias_squared']['value'] / whole:.0f} %",
        *(change(momentum["ratios"][f"m_{form}"]) for form in FORMS),
        span(best, "{:.2g}") if best else "-",
    ]


def noise_sentences(study: Study) -> list[str]:
    """Is this job noise-limited, would a larger batch or MARS help, approx or exact."""
    sentences = []
    for arm in study["arms"]:
        by_scale = sorted(arm["points"], key=lambda p: total(p["noise"])["scale"]["value"] or 9e99)
        middle = by_scale[len(by_scale) // 2]
        sentences.append(f"Batch, on {arm['name']}'s path: {_batch_sentence(study, middle)}")
    for arm in study["arms"]:
        sentences.append(f"MARS, on {arm['name']}'s path: {_momentum_sentence(study, arm)}")
    sentences += [_form_sentence(arm) for arm in study["arms"][:1]]
    if study["grad_clip"]:
        clipped = " and ".join(
            f"{100 * arm['clipped']:.0f} % of {arm['name']}'s steps" for arm in study["arms"]
        )
        sentences.append(
            f"The clip of the whole gradient at {study['grad_clip']:g} acted in {clipped}; all of "
            "the above is measured before it."
        )
    sentences.append(
        "A smaller error of the momentum does not mean fewer tokens: `mars pilot` "
        "measures whether MARS pays."
    )
    return sentences


def _batch_sentence(study: Study, point: Point) -> str:
    batch = study["batch_tokens"]
    scale = total(point["noise"])["scale"]
    value, low, high = scale["value"], scale["low"], scale["high"]
    if value is None or low is None:
        return (
            f"at step {point['step']:,} the noise of the batches hides the signal: a "
            f"batch of {batch:,} tokens is noise-limited; raise --batches for a number."
        )
    text = (
        f"at step {point['step']:,} the noise scale is {in_tokens(scale, batch)} tokens, "
        f"{number(value)} times the batch of {batch:,}, so "
    )
    part = f"{100 * value / (1 + value):.0f} % of a batch's squared gradient is noise"
    steps = (1 + value / 2) / (1 + value)
    cost = (1 + 2 / value) / (1 + 1 / value)
    double = (
        f"By McCandlish's model twice the batch would take {100 * (1 - steps):.0f} % fewer steps "
        f"and {100 * (cost - 1):.0f} % more tokens."
    )
    if low > 1:
        return f"{text}this job is noise-limited: {part}. {double}"
    if high is not None and high < 1:
        return f"{text}signal dominates: only {part}, so a larger batch gains little. {double}"
    return f"{text}noise and signal are about equal: {part}. {double}"


def _momentum_sentence(study: Study, arm: dict[str, Any]) -> str:
    plain = [total(p["momentum"])["estimators"]["m_plain"] for p in arm["points"]]
    lags = [max(0.0, e["bias_squared"]["value"] / e["error"]["value"]) for e in plain]
    forms = {"m_approx": "approx", "m_exact": "exact"}
    if study["clip"]:
        forms["m_approx_clipped"] = f"approx with its clip at {study['clip']:g} per tensor"
    effects = [_effect(name, text, arm["points"]) for name, text in forms.items()]
    return (
        f"{span_of(lags)} of the error of AdamW's momentum (beta1 {study['beta1']:g}) is lag, the "
        f"rest noise. With gamma {study['gamma']:g}, {'; '.join(effects)}."
    )


def _effect(name: str, text: str, points: list[Point]) -> str:
    ratios = [total(p["momentum"])["ratios"][name] for p in points]
    better = sum(r["high"] is not None and r["high"] < 1 for r in ratios)
    worse = sum(r["low"] is not None and r["low"] > 1 for r in ratios)
    if better == len(ratios) or worse == len(ratios):
        verdict = f"{'lowers' if better else 'raises'} it at every stop"
    elif not better and not worse:
        verdict = "makes no visible difference to it"
    else:
        counts = (("lowers", better), ("raises", worse))
        verdict = " and ".join(f"{do} it at {n} of {len(ratios)} stops" for do, n in counts if n)
    values = " then ".join(f"{change(r)} %" for r in ratios)
    return f"{text} {verdict}: {values}"


def _form_sentence(arm: dict[str, Any]) -> str:
    momenta = [total(p["momentum"]) for p in arm["points"]]
    pairs = [[m["ratios"][f"m_{form}"]["value"] for form in FORMS] for m in momenta]
    if any(x is None for pair in pairs for x in pair):
        return "Approx or exact: the noise hides the difference."
    gains = [100 * (approx - exact) for approx, exact in pairs]
    bests = [m["best_gamma"]["value"] for m in momenta if m["best_gamma"]]
    seen = [best for best in bests if best is not None]
    best = f" Approx's error would be least at gamma {span_of(seen, '{:.2g}')}." if seen else ""
    if not any(_apart(*(m["ratios"][f"m_{form}"] for form in FORMS)) for m in momenta):
        return f"Approx or exact, on {arm['name']}'s path: the intervals show no difference.{best}"
    return (
        f"Approx or exact, on {arm['name']}'s path: exact's error is lower by "
        f"{span_of(gains, '{:.1f}')} % of AdamW's, for a second pass per step.{best}"
    )


def _apart(a: Numbers, b: Numbers) -> bool:
    """Whether two intervals have no number in common."""
    pairs = ((a["high"], b["low"]), (b["high"], a["low"]))
    return any(x is not None and y is not None and x < y for x, y in pairs)


# --- pictures --------------------------------------------------------------------------------


def noise_figure(study: Study) -> str:
    """An SVG file: the noise scale, what AdamW's momentum is made of, and what MARS does to it."""
    panels = {
        "scale": _scale_panel(study),
        "parts": _parts_panel(study),
        "ratio": _ratio_panel(study),
    }
    return standalone("".join(svg_element(f"noise-{n}", draw) for n, draw in panels.items()))


def _scale_panel(study: Study) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        for role, marker, arm in zip(LABELS, "so", study["arms"], strict=True):
            rows = [(p["step"], total(p["noise"])["scale"]) for p in arm["points"]]
            _intervals(ax, rows, ARMS[role], marker, arm["name"], study["batch_tokens"])
        ax.axhline(study["batch_tokens"], color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
        ax.annotate(
            "batch trained on",
            (1, study["batch_tokens"]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=MIN_SAVING,
        )
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))
        _steps(ax, study)
        ax.set_ylabel("noise scale, tokens")
        legend(ax)

    return draw


def _parts_panel(study: Study) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        arm = study["arms"][0]
        positions = range(len(arm["points"]))
        bottom = [0.0] * len(arm["points"])
        for key, label, tint in (
            ("variance", "noise", "#56b4e9"),
            ("bias_squared", "lag", "#8c6d31"),
        ):
            heights = []
            for point in arm["points"]:
                momentum = total(point["momentum"])
                value = momentum["estimators"]["m_plain"][key]["value"]
                signal = momentum["signal"]["value"]
                heights.append(max(0.0, value / signal) if signal > 0 else 0.0)
            ax.bar(positions, heights, 0.55, bottom=bottom, color=tint, label=label)
            bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
        ax.set_xticks(positions, [f"{p['step']:,}" for p in arm["points"]])
        ax.set_xlabel(f"step on {arm['name']}'s path")
        ax.set_ylabel("error of the momentum / signal")
        ax.grid(axis="x", visible=False)
        legend(ax)

    return draw


def _ratio_panel(study: Study) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        for marker, line, arm in zip("so", (":", "-"), study["arms"], strict=True):
            for form, tint in TINTS.items():
                rows = [
                    (p["step"], total(p["momentum"])["ratios"][f"m_{form}"]) for p in arm["points"]
                ]
                label = f"{form}, on {arm['name']}'s path"
                _intervals(ax, rows, tint, marker, label, 100.0, line)
        ax.axhline(100, color=AXIS, lw=1)
        _steps(ax, study)
        ax.set_ylabel("error, % of AdamW's")
        legend(ax)

    return draw


def _steps(ax: Axes, study: Study) -> None:
    steps = [p["step"] for p in study["arms"][0]["points"]]
    ax.set_xticks(steps, [f"{s:,}" for s in steps])
    ax.set_xlabel("step")


def _intervals(
    ax: Axes,
    rows: list[tuple[int, Numbers]],
    tint: str,
    marker: str,
    label: str,
    unit: float,
    line: str = "-",
) -> None:
    seen = [(x, e) for x, e in rows if e["value"] is not None and e["high"] is not None]
    if not seen:
        return
    xs = [x for x, _ in seen]
    low, value, high = ([unit * (e[k] or 0.0) for _, e in seen] for k in ("low", "value", "high"))
    ax.plot(xs, value, line, marker=marker, ms=5, lw=1.4, color=tint, label=label)
    ax.vlines(xs, low, high, color=tint, lw=5, alpha=0.3)


# --- numbers ---------------------------------------------------------------------------------


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Result of all parameter groups together."""
    return rows[-1]


def in_tokens(scale: Numbers, batch_tokens: int) -> str:
    """A noise scale in tokens, with its interval."""
    return span({k: None if v is None else v * batch_tokens for k, v in scale.items()})


def span(numbers: Numbers, form: str = "") -> str:
    """``value [low, high]``; ``-`` for what is not bounded."""

    def show(x: float | None) -> str:
        return "-" if x is None else form.format(x) if form else number(x)

    return f"{show(numbers['value'])} [{show(numbers['low'])}, {show(numbers['high'])}]"


def change(ratio: Numbers) -> str:
    """A ratio of errors as a change in per cent, with its interval."""
    return span({k: None if v is None else 100 * (v - 1) for k, v in ratio.items()}, "{:+.1f}")


def span_of(values: list[float], form: str = "{:.0%}") -> str:
    """``low to high`` of some values, or the one that they share."""
    low, high = (form.format(f(values)).replace("%", " %") for f in (min, max))
    return low if low == high else f"{low} to {high}"


def number(x: float) -> str:
    """Two digits and more, with k and M."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if abs(x) >= size:
            return f"{x / size:.{3 if x >= 100 * size else 2}g}{unit}"
    return f"{x:.{3 if x >= 100 else 2}g}"
