"""Write the JSON schema of report.json, which is made from its types: python docs/report_schema.py"""

from __future__ import annotations

from pathlib import Path

from keeptune.report.document import report_schema
from keeptune.storage import write_json

if __name__ == "__main__":
    write_json(Path(__file__).with_name("report.schema.json"), report_schema())
