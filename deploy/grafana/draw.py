#!/usr/bin/env python3
"""Draws the dashboard without a Grafana: the same panels and queries, asked of a Prometheus. Needs matplotlib.

    deploy/grafana/draw.py http://127.0.0.1:9090 dashboard.png [minutes]
"""
import json
import math
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

DASHBOARD = pathlib.Path(__file__).parent / "dashboards" / "slotway.json"
WIDTH = 24  # columns of the grid


def filled(expression, variables, step):
    """An expression with the dashboard's variables in it, as Grafana fills them."""
    for name in sorted(variables, key=len, reverse=True):
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", f"{max(4 * step, 10)}s").replace("$__interval", f"{step}s")


def asked(server, expression, start, end, step):
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": step})
    with urllib.request.urlopen(f"{server}/api/v1/query_range?{query}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def legend(form, labels):
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found.group(1), ""), form) or "value"


def shown(value, unit):
    """A value with its unit, short."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and value < 1:
        return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit and unit != "none":
            return f"{value / (1e3 if sign == 'k' else limit):.3g} {sign}"
    return f"{value:.5g}" + {"s": " s", "ops": "/s"}.get(unit, "")


def draw(axes, panel, server, variables, times):
    start, end, step = times
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "none")
    axes.set_title(panel["title"], fontsize=8, loc="left", fontweight="bold")
    lines = []
    for target in panel["targets"]:
        expression = filled(target["expr"], variables, step)
        for series in asked(server, expression, start, end, step):
            points = [(float(at), float(value)) for at, value in series["values"]]
            name = legend(target.get("legendFormat", ""), series["metric"])
            lines.append((name, [at - end for at, _ in points], [value for _, value in points]))
    if panel["type"] == "stat":
        axes.axis("off")
        value = lines[0][2][-1] if lines else math.nan
        axes.text(0.5, 0.4, shown(value, unit), ha="center", va="center", fontsize=18, transform=axes.transAxes)
        return
    if len(lines) > 6:
        # What is nothing all the time only hides the rest.
        lines = [line for line in lines if any(value and not math.isnan(value) for value in line[2])] or lines[:1]
    for name, at, values in lines:
        axes.plot([second / 60 for second in at], values, linewidth=1, label=name)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    axes.set_xlim((start - end) / 60, 0)
    axes.set_ylim(bottom=0)
    if lines:
        axes.legend(fontsize=5, ncols=2, loc="upper left", framealpha=0.6)
    else:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)


def main():
    server, picture = sys.argv[1].rstrip("/"), sys.argv[2]
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 15
    dashboard = json.loads(DASHBOARD.read_text())
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    end = time.time()
    times = (end - minutes * 60, end, max(int(minutes * 60 / 200), 1))
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = pyplot.figure(figsize=(16, height * 0.32), dpi=80)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            figure.text(0.01, 1 - (place["y"] + 0.6) / height, panel["title"], fontsize=11, fontweight="bold")
            continue
        box = (
            (place["x"] + 1.1) / WIDTH,
            1 - (place["y"] + place["h"] - 0.9) / height,
            (place["w"] - 1.4) / WIDTH,
            (place["h"] - 2.0) / height,
        )
        draw(figure.add_axes(box), panel, server, variables, times)
    figure.savefig(picture)


if __name__ == "__main__":
    main()
