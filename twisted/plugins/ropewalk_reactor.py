"""`twistd --reactor=ropewalk`, found by twistd. Data only: nothing of ropewalk is imported before it is used."""

from twisted.application.reactors import Reactor

ropewalk_reactor = Reactor("ropewalk", "ropewalk.engine.reactor", "Twisted's asyncio reactor, on uvloop.")
