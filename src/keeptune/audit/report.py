"""The demo's page: see `keeptune.audit.page.demo`."""

from keeptune.audit.page.demo import demo_page

__all__ = ["demo_page"]
