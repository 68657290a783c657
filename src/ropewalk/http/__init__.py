"""The HTTP wire: what makes a Request of an HTTP request and an HTTP reply of a Response; and what web pages need.

`server` maps operations onto Klein routes and back, `client` calls a sibling over HTTP, `openapi` describes, `docs`
shows the description, `internal` answers what only the inside may ask (health, metrics). `pages` is what services that
show pages import: `sessions`, `csrf`, `templates`, `paths`, `redirect`, `static`, `cors`. `mounts` hosts foreign
applications (`asgi` those of that kind), `auth` and `identity` tell who asks. `twisted.web` requests exist in this room
only.
"""
