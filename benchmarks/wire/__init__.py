"""Ropewalk's server and client beside others on the same work, one core each: see `__main__.py`.

    __main__.py        the command
    peers.py           who is compared, and what each needs
    work.py            what is asked and what must come back
    rounds.py          who is measured when; the figures
    processes.py       processes on their cores, and wrk
    tables.py plot.py  what is shown

    raw.py             the ceilings: uvloop and httptools, without a framework
    services.py        Ropewalk's services, as `twistd ropewalk` runs them
    klein_peers.py     Klein, on `ropewalk.engine.Site` and on Twisted's own
    asgi_peers.py      FastAPI, Falcon, BlackSheep, Litestar
    server_peers.py    Sanic, aiohttp, Tornado: frameworks with a server of their own
    callers.py         what calls: a sibling's client, treq, aiohttp, httpx

A peer's application is a function of one of the latter modules. What need not be installed is imported in it.
"""
