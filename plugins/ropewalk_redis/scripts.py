"""What happens in Redis at once: one Lua script each. `ARGV[1]` is always the prefix of our keys, which are

    last                     the id given last, of all streams
    partitions               how many there are
    topics                   what was published or subscribed to, ever
    stream:<topic>:<n>       the messages of one partition, {m: CloudEvent}
    groups:<topic>           who is subscribed
    bound:<group>            to which topics
    members:<group>          token -> when it counts as dead, in Redis's milliseconds
    lease:<group>:<n>        the token of the member that has the partition; it expires
    purged                   somebody has looked for what is old; it expires

Ids grow over all streams, not only within each: so the messages of a key have one order in all topics, and what is read
from several streams is put together by id. An entry that a group was given has a count in Redis's own list of what is
pending: 1 when it was read, one more for each time it was given to be handled. Every entry belongs to the one consumer
of its group, "owner", whoever that is at the time: a new one finds what the last one left.

Keys are named within the scripts: for one server, not for a cluster, which txredisapi does not speak.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

from msgspec import Struct

OWNER: Final = "owner"


class Script(Struct, frozen=True):
    """A script and what Redis calls it."""

    text: str
    sha: str


def _script(text: str) -> Script:
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


_MILLISECONDS = """
local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

# group, partitions, the id a new group begins after, topics...; answers the id given last
BIND = _script("""
local prefix, group, partitions, since = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local bound, wanted = prefix .. ':bound:' .. group, {}
for i = 5, #ARGV do
    local topic = ARGV[i]
    wanted[topic] = true
    for n = 0, partitions - 1 do
        local stream = prefix .. ':stream:' .. topic .. ':' .. n
        local made = redis.pcall('XGROUP', 'CREATE', stream, group, since, 'MKSTREAM')
        if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
    end
    redis.call('SADD', prefix .. ':groups:' .. topic, group)
    redis.call('SADD', prefix .. ':topics', topic)
    redis.call('SADD', bound, topic)
end
for _, topic in ipairs(redis.call('SMEMBERS', bound)) do
    if not wanted[topic] then
        for n = 0, partitions - 1 do
            redis.pcall('XGROUP', 'DESTROY', prefix .. ':stream:' .. topic .. ':' .. n, group)
        end
        redis.call('SREM', prefix .. ':groups:' .. topic, group)
        redis.call('SREM', bound, topic)
    end
end
return redis.call('GET', prefix .. ':last') or '0-0'
""")

# (topic, partition, message)...; answers for each how many groups it waits for
PUBLISH = _script(
    _MILLISECONDS
    + """
local prefix = ARGV[1]
local ms, seq = milliseconds(), 0
local last_ms, last_seq = string.match(redis.call('GET', prefix .. ':last') or '0-0', '(%d+)-(%d+)')
if tonumber(last_ms) >= ms then ms, seq = tonumber(last_ms), last_seq + 1 end
-- Before the first of them: whatever becomes of this script, no id is given twice.
redis.call('SET', prefix .. ':last', string.format('%.0f-%.0f', ms, seq + (#ARGV - 1) / 3 - 1))
local heard, groups = {}, {}
for i = 2, #ARGV, 3 do
    local topic = ARGV[i]
    local stream = prefix .. ':stream:' .. topic .. ':' .. ARGV[i + 1]
    redis.call('XADD', stream, string.format('%.0f-%.0f', ms, seq), 'm', ARGV[i + 2])
    seq = seq + 1
    if not groups[topic] then
        groups[topic] = redis.call('SCARD', prefix .. ':groups:' .. topic)
        redis.call('SADD', prefix .. ':topics', topic)
    end
    heard[#heard + 1] = groups[topic]
end
return heard
"""
)

# group, token, partitions, milliseconds of a lease, whether it stays (1), leaves (0) or is gone (-1)
# answers its share, the partitions it has, and whether the group is bound to anything
BEAT = _script(
    _MILLISECONDS
    + """
local prefix, group, token, partitions, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now, members = milliseconds(), prefix .. ':members:' .. group
redis.call('ZREMRANGEBYSCORE', members, '-inf', now)
if ARGV[6] == '1' then
    redis.call('ZADD', members, now + lease, token)
else
    redis.call('ZREM', members, token)
end
local share, all = 0, redis.call('ZRANGE', members, 0, -1)
table.sort(all)
for i, each in ipairs(all) do
    if each == token then
        share = math.floor(partitions / #all)
        if i <= partitions % #all then share = share + 1 end
    end
end
local mine, free = {}, {}
for n = 0, partitions - 1 do
    local name = prefix .. ':lease:' .. group .. ':' .. n
    local owner = redis.call('GET', name)
    if owner == token and ARGV[6] == '-1' then
        redis.call('DEL', name)
    elseif owner == token then
        redis.call('PEXPIRE', name, lease)
        mine[#mine + 1] = n
    elseif not owner then
        free[#free + 1] = n
    end
end
for _, n in ipairs(free) do
    if #mine >= share then break end
    redis.call('SET', prefix .. ':lease:' .. group .. ':' .. n, token, 'NX', 'PX', lease)
    mine[#mine + 1] = n
end
return {share, mine, redis.call('EXISTS', prefix .. ':bound:' .. group)}
"""
)

# group, partition, token, most of a stream, (topic, where to go on in what is pending or '')...
# answers nil without the lease; else the id given last, and for each topic [[[id, count, message or nil]...], pending]
TAKE = _script("""
local prefix, group, n, token, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('GET', prefix .. ':lease:' .. group .. ':' .. n) ~= token then return false end
local answer = {redis.call('GET', prefix .. ':last') or '0-0'}
for i = 6, #ARGV, 2 do
    local stream, from, entries = prefix .. ':stream:' .. ARGV[i] .. ':' .. n, ARGV[i + 1], {}
    if from ~= '' then
        for _, each in ipairs(redis.call('XPENDING', stream, group, from, '+', most)) do
            local found = redis.call('XRANGE', stream, each[1], each[1])[1]
            entries[#entries + 1] = {each[1], each[4], found and found[2][2] or false}
        end
    end
    local pending = #entries
    if pending < most then
        local new = redis.call('XREADGROUP', 'GROUP', group, 'owner', 'COUNT', most, 'STREAMS', stream, '>')
        for _, each in ipairs(new and new[1][2] or {}) do
            entries[#entries + 1] = {each[1], 1, each[2][2]}
        end
    end
    answer[#answer + 1] = {entries, pending}
end
return answer
""")

# group, partition, token, (topic, id, its count from now on, or 0: it is done)...
NOTE = _script("""
local prefix, group, n = ARGV[1], ARGV[2], ARGV[3]
local mine = redis.call('GET', prefix .. ':lease:' .. group .. ':' .. n) == ARGV[4]
for i = 5, #ARGV, 3 do
    local stream = prefix .. ':stream:' .. ARGV[i] .. ':' .. n
    if ARGV[i + 2] == '0' then
        redis.call('XACK', stream, group, ARGV[i + 1])
    elseif mine then
        redis.pcall('XCLAIM', stream, group, 'owner', 0, ARGV[i + 1], 'RETRYCOUNT', ARGV[i + 2], 'JUSTID')
    end
end
return 'OK'
""")

# group, partition, token
RELEASE = _script("""
local lease = ARGV[1] .. ':lease:' .. ARGV[2] .. ':' .. ARGV[3]
if redis.call('GET', lease) == ARGV[4] then redis.call('DEL', lease) end
return 'OK'
""")

# topic, partitions, where to begin (exclusive), where to end, most of a partition; answers [[id, message]...] of each
HISTORY = _script("""
local answer = {}
for n = 0, tonumber(ARGV[3]) - 1 do
    local entries = {}
    local stream = ARGV[1] .. ':stream:' .. ARGV[2] .. ':' .. n
    for _, each in ipairs(redis.call('XRANGE', stream, '(' .. ARGV[4], ARGV[5], 'COUNT', ARGV[6])) do
        entries[#entries + 1] = {each[1], each[2][2]}
    end
    answer[#answer + 1] = entries
end
return answer
""")

# milliseconds; answers the topics when nobody else has looked for what is old in that time
PURGES = _script("""
if not redis.call('SET', ARGV[1] .. ':purged', '1', 'NX', 'PX', ARGV[2]) then return {} end
return redis.call('SMEMBERS', ARGV[1] .. ':topics')
""")

# topic, partition, milliseconds that messages stay; answers how many went, and the groups that keep older ones here
PURGE = _script(
    _MILLISECONDS
    + """
local stream = ARGV[1] .. ':stream:' .. ARGV[2] .. ':' .. ARGV[3]
if redis.call('EXISTS', stream) == 0 then return {0, {}} end
local function parsed(id)
    local ms, seq = string.match(id, '(%d+)-(%d+)')
    return {tonumber(ms), tonumber(seq), id}
end
local function before(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end
local limit = parsed(string.format('%.0f-0', math.max(0, milliseconds() - ARGV[4])))
local from, late = limit, {}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    local read = parsed(group['last-delivered-id'])
    local first = redis.call('XRANGE', stream, '(' .. read[3], '+', 'COUNT', 1)[1]
    local waits = first and parsed(first[1])
    if group['pending'] > 0 then waits = parsed(redis.call('XPENDING', stream, group['name'])[2]) end
    if waits and before(waits, limit) then
        late[#late + 1] = group['name']
        if before(waits, from) then from = waits end
    end
end
return {redis.call('XTRIM', stream, 'MINID', from[3]), late}
"""
)
