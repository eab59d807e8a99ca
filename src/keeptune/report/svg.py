"""matplotlib's SVG as a part of a page: its own ids and colors, titles, and nothing that no one needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from markupsafe import Markup

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NUMBERS = ("d", "x", "y", "transform", "width", "height")
ElementTree.register_namespace("", _SVG[1:-1])


def for_page(drawing: str, name: str, titles: Mapping[str, str], colors: Mapping[str, str]) -> Markup:
    """The drawing, to stand in HTML.

    Args:
        drawing: what matplotlib wrote, with text as text (`svg.fonttype: none`).
        name: its ids begin so: unique in the page.
        titles: what the pointer says over an element, by its id; text that XML can hold.
        colors: the page's colors that stand for some of the drawing.
    """
    root = ElementTree.fromstring(re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>", "", drawing, flags=re.DOTALL))  # noqa: S314 — our own
    uses = [element for element in root.iter() if _HREF in element.attrib]
    ids = list(dict.fromkeys(re.findall(r"#([\w-]+)", drawing)))
    short = {own: f"{name}{number}" for number, own in enumerate(ids)}
    _say_style_once(root, uses)
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in short:
            element.set("id", short[own])
        if own and own in titles:
            title = ElementTree.Element(f"{_SVG}title")
            title.text = titles[own]
            element.insert(0, title)
            element.set("class", "mark")
        _shorten(element, short)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    _unwrap(root)
    text = ElementTree.tostring(root, encoding="unicode")
    for color, of_page in colors.items():
        text = text.replace(color, of_page)
    return Markup(text)  # noqa: S704 — ElementTree has escaped every text


def _say_style_once(root: ElementTree.Element, uses: list[ElementTree.Element]) -> None:
    """What all uses of a mark look like is said where the mark is defined."""
    defined = {element.get("id"): element for element in root.iter() if element.get("id")}
    for use in uses:
        target = use.attrib[_HREF][1:]
        styles = {other.get("style", "") for other in uses if other.attrib[_HREF][1:] == target}
        if len(styles) == 1 and target in defined:
            defined[target].set("style", next(iter(styles)))
    for use in uses:
        if (mark := defined.get(use.attrib[_HREF][1:])) is not None and mark.get("style") == use.get("style"):
            del use.attrib["style"]


def _shorten(element: ElementTree.Element, ids: Mapping[str, str]) -> None:
    for key, value in list(element.attrib.items()):
        if key == _HREF:
            del element.attrib[key]
            element.set("href", f"#{ids[value[1:]]}")
        elif value.startswith("url(#"):
            element.set(key, f"url(#{ids[value[5:-1]]})")
        elif key in _NUMBERS:
            element.set(key, re.sub(r"\s+", " ", re.sub(r"(\.\d\d)\d+", r"\1", value)).strip())
    if style := element.get("style"):
        element.set("style", re.sub(r"font-family:[^;]*;? ?|stroke-linejoin: miter;? ?", "", style).strip())


def _unwrap(parent: ElementTree.Element) -> None:
    """Take out what does nothing: metadata, white space, groups without attributes, turns by no angle."""
    parent.text = parent.text if parent.tag in (f"{_SVG}text", f"{_SVG}title") else None
    for child in list(parent):
        child.tail = None
        if child.tag in (f"{_SVG}metadata", f"{_SVG}style") or not isinstance(child.tag, str):
            parent.remove(child)
            continue
        _unwrap(child)
        if (child.get("transform") or "").startswith("rotate(-0"):
            del child.attrib["transform"]
        place = list(parent).index(child)
        if (
            child.tag in (f"{_SVG}g", f"{_SVG}defs")
            and not child.attrib
            and (child.tag == f"{_SVG}g" or not len(child))
        ):
            parent.remove(child)
            for number, grandchild in enumerate(child):
                parent.insert(place + number, grandchild)
        elif child.tag == f"{_SVG}path" and child.get("style") == "fill: none":
            parent.remove(child)
