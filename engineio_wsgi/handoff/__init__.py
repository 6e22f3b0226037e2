"""How a client's connection is detached from the server loop that has accepted it, and how another loop adopts it.

`Detachable` is the Protocol of every connection in a server loop. The private names of other packages that the loops need are in
`vendors`. This room must not know Engine.IO sessions.
"""
