"""gunicorn for rango_gevent: ``gunicorn -c conf/gunicorn.conf.py rango_gevent.wsgi:app``.

What the gateway does, its address included, is set by environment variables: rango.env.example.
Here is what gunicorn itself does. Of its other options these have no effect on WebSocket workers:
--max-requests, --limit-request-*, --forwarded-allow-ips, --access-logfile, --keep-alive.
"""

from rango_gevent import gunicorn_hooks as rango

# Workers on gevent with the gateway's handshake: 401, 403 and 503 are decided before the upgrade.
worker_class = rango.worker_class
# Nothing: every worker listens on RANGER_HOST:RANGER_PORT by itself, so all get an equal share.
bind = rango.bind
# RANGO_WORKERS. Each has its own queue in RabbitMQ and reads every message: at most one per core.
workers = rango.workers
# Out of the way: RANGO_MAX_CONNECTIONS answers 503, where gunicorn's own cap lets clients hang.
worker_connections = rango.worker_connections
# RANGO_WORKER_TIMEOUT_S: seconds without a sign of life after which a worker is replaced.
timeout = rango.timeout
# Seconds until a stopping worker is killed: RANGO_DRAIN_S + RANGO_CLOSE_TIMEOUT_S + 10.
graceful_timeout = rango.graceful_timeout
# Never: gevent must patch the standard library before the application is imported.
preload_app = rango.preload_app
# gunicorn 25 and later open a control socket under $HOME, which a service may not have.
control_socket_disable = rango.control_socket_disable
# The workers' signs of life go to memory: a busy disk must not make a worker look stuck.
worker_tmp_dir = rango.worker_tmp_dir
# SIGHUP reloads RANGO_ENV_FILE and the key in every worker, and drops nobody. A taken port is
# refused, which SO_REUSEPORT would share between two gateways in silence.
on_starting = rango.on_starting
# A worker that hangs while it starts is replaced too.
pre_fork = rango.pre_fork
# Workers that die one after the other are started again more slowly, and the log says so.
child_exit = rango.child_exit
# Take away the directory that the workers share for their metrics.
on_exit = rango.on_exit
# gunicorn's log to standard error, where the gateway's goes too.
errorlog = rango.errorlog
# Follows LOG_LEVEL.
loglevel = rango.loglevel
# RANGO_LOG_FORMAT: gunicorn's lines look like the gateway's, with the pid on each.
logconfig_dict = rango.logconfig_dict
