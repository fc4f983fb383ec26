"""The administrators' room: what goes on in a gateway, for people with the role to see it.

`office`    who is logged in, what they may ask, and what is done for it, in all workers
`session`   an administrator's connection: log in in band, ask, be told
`requests`  what may be asked, read from text
`worker`    what one worker does of it: look, find, disconnect, follow a connection
`reading`   a worker's state, gathered in slices
`merging`   the states of several workers as one answer
`rates`     which streams are busy, counted while somebody looks
`tape`      what went to and came from one connection, within bounds, tokens masked
`tailed`    a connection that is listened to
`siblings`  requests between the workers of one parent

Nothing here is on the path of messages: a connection that is followed becomes another class for
that time, and rates are counted per gathering of the dispatcher while somebody looks.
"""
