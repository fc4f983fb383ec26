"""``python -m rango_gevent`` is the ``rango`` command."""

# ruff: noqa: I001 - the command patches the standard library in its first line
from rango_gevent.cli import main

raise SystemExit(main())
