"""The settings: `table` has all, `option` says what a row is, `loading` reads, `showing` tells.

Pure: the environment and the flags come in as mappings, nobody else in the package reads them,
and the rest of the package gets plain values.
"""

from rango_gevent.settings.loading import ENV_FILE, Loaded, load
from rango_gevent.settings.option import Option
from rango_gevent.settings.showing import changes, shown, told_changes
from rango_gevent.settings.table import LOG_LEVELS, Settings, flag_names, options

__all__ = [
    "ENV_FILE",
    "LOG_LEVELS",
    "Loaded",
    "Option",
    "Settings",
    "changes",
    "flag_names",
    "load",
    "options",
    "shown",
    "told_changes",
]
