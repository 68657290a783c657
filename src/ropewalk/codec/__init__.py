"""Values <-> bytes, by type: what an operation's parameters mean on a wire, problem documents, JSON Schemas.

No I/O and no Twisted here: bytes in, values out, and the other way round; every function could run in a table of
examples. `parameters` reads a signature against its route (`routes`); `binding` turns arguments into `Parts`, the form
every wire carries, and back; `explain` names every wrong field of what was refused; `problem` is errors as RFC 9457
documents; `forms` reads HTML forms; `pieces` are those of a stream; `schema` describes types.
"""
