"""Photograph the report of an audit for the README, with headless Chromium.

    python docs/screenshots.py audit/report.json

Renders the page from report.json and writes docs/audit-light.png, the top of it on a desk, and
docs/audit-phone-dark.png, the same on a phone in the dark.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from update_readme import photograph

from keeptune.audit.page import audit_page
from keeptune.audit.settings import SECTIONS
from keeptune.probes.recovery import Recovery
from keeptune.report.document import read_report

DOCS = Path(__file__).resolve().parent
DESK = (1180, 1420)
PHONE = (390, 1240)
# A headless window is never narrower than 500 px: a frame is, and it stands in the middle of a dark sheet.
FRAME = """<body style="margin: 0; background: #14171a; display: grid; place-content: start center; height: 100vh">
<iframe src="page.html" width="{width}" height="{height}" style="border: 0"></iframe>"""


def main() -> None:
    report = read_report(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        page, phone = Path(folder) / "page.html", Path(folder) / "phone.html"
        page.write_text(audit_page(report, (*SECTIONS, Recovery)), encoding="utf-8")
        phone.write_text(FRAME.format(width=PHONE[0], height=PHONE[1]), encoding="utf-8")
        photograph(page, DOCS / "audit-light.png", DESK, "--blink-settings=preferredColorScheme=1")
        dark = ("--blink-settings=preferredColorScheme=0", "--force-device-scale-factor=2")
        photograph(phone, DOCS / "audit-phone-dark.png", (500, PHONE[1]), *dark)


if __name__ == "__main__":
    main()
