"""A Klein application that knows nothing of Ropewalk."""

import os

from klein import Klein
from twisted.internet import reactor
from twisted.internet.task import deferLater

app = Klein()


@app.route("/pid")
def pid(request):
    return str(os.getpid())


@app.route("/slow")
def slow(request):
    return deferLater(reactor, float(request.args[b"seconds"][0]), pid, request)
