"""The subcommands of ``rango``: a module each, with what it takes and what it does.

`rango_gevent.cli` has the list, and imports one when it is named. The others here are parts of
them: `arguments`, `terminal` and `findings` are for all; `examine_path`, `examine_process`, `visit`
and `probe` look at things for the doctor and for ``config --check --connect``; `identify` looks at
tokens; `ladder` and `rates` are how ``tail`` draws.
"""
