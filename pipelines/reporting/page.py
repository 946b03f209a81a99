"""The report as one file of HTML that asks for nothing from anywhere: charts inline, pictures as data."""

import base64
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from pipelines.evaluation.approach import title
from pipelines.reporting import charts, pictures

TEMPLATE = Path(__file__).with_name("page.html")
LOSSLESS = 200_000  # pixels of a picture, up to which it is kept exactly
COLOURS = charts.COLOURS | charts.CLASSES


def render(context: Mapping[str, Any], template: Path = TEMPLATE) -> str:
    """The page; every text in the context is escaped. All templates share style.css."""
    loader = jinja2.FileSystemLoader([template.parent, TEMPLATE.parent])
    strict: Any = {"autoescape": True, "undefined": jinja2.StrictUndefined, "finalize": together}
    environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, **strict)
    environment.filters["named"] = title
    environment.globals |= {"svg": svg, "img": img, "colours": COLOURS}
    return environment.get_template(template.name).render(context)


def together(value: Any) -> Any:
    """Text in which no line ends between a number and its sign."""
    return value.replace(" %", "\u00a0%").replace("± ", "±\u00a0") if type(value) is str else value


def svg(figure: Figure, name: str, heading: str) -> Markup:
    """A chart that takes its colours and its font from the page. name: before every id, so that charts share none."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'id="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    body = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]*", weighed, body)
    for variable, (light, _) in COLOURS.items():
        body = body.replace(light, f"var(--{variable})")
    label = Markup.escape(heading)
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(f"{head}<title>{label}</title>{body}")


def weighed(found: re.Match[str]) -> str:
    return f"font-size: {found[2]}px" + (f"; font-weight: {found[1]}" if found[1] else "")


def img(pixels: pictures.Image, alt: str) -> Markup:
    """A picture as data; small ones are magnified in squares, as they are."""
    file = io.BytesIO()
    height, width = pixels.shape[:2]
    exact = height * width <= LOSSLESS
    Image.fromarray(pixels).save(file, "webp", lossless=exact, quality=88)
    data = base64.b64encode(file.getvalue()).decode()
    kind = ' class="pixels"' if exact else ""
    return Markup(
        f'<img{kind} src="data:image/webp;base64,{data}" width="{width}" height="{height}" alt="{{}}">'
    ).format(alt)
