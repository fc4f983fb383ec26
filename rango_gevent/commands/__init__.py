"""What each subcommand of ``rango`` does: a module each, called by `rango_gevent.cli`."""
