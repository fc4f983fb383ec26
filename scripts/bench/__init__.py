"""The benchmark: the same work for this gateway and its peers, and what it cost them.

==============  ====================================================================
scenarios       P   the table of scenarios and their goals
messages        P   bodies and routing keys, encoded for AMQP, NATS and HTTP
report          P   results, percentiles, the table, the goals
machine         IO  what /proc says of processes and of the machine
native          IO  builds the C tools of ``native/`` when they are first used
tools           IO  the C tools as running processes
servers         IO  what a server is: its processes, its clients, its messages
gateways        IO  our gateway, or one that runs already
peers           IO  what it is compared with, and the floor
probe           IO  a handshake and pings while others are served
runner          IO  one scenario on one server
chart           IO  the SVG
arguments       IO  what is asked for
jobs            IO  each scenario on each of its servers
output          IO  how it goes and what came out
==============  ====================================================================

Clients and publisher are C, so that they take little of the machine that they share with the
server. Everything stays on the loopback interface, is bounded in time, and every process that
was started is ended by its id.
"""
