"""What a lock is in Redis, and the Lua scripts that change it, each atomic.

Keys of a lock, all in one hash slot: ``brainy:{<scope>#<name>}:`` followed by

* ``state``, a hash, never deleted by us: ``v`` format version; ``token`` of the latest grant; ``block``,
  ``ceiling``, ``replid`` the block tokens come from, its last token and the history of the server it was put
  into; ``held``, ``owner``, ``incarnation``, ``nonce``, ``purpose``, ``ttl``, ``renewals`` of the latest grant;
  ``since``, ``expires`` in milliseconds of the clock of the server that ``server`` names.
* ``queue``, a sorted set: waiters by arrival. ``alive``, a sorted set: waiters by when they count as gone.

Times are the server's own and compared with its own only: after a failover a lease begins anew on the new
server's clock. ``replid`` is the server's ``master_replid``, which changes whenever a server starts as a master
or becomes one: then what it holds may lag behind what was granted, and its block is no longer used.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

FORMAT_VERSION: Final = 1

_COMMON: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local raw = redis.call('HGETALL', KEYS[1])
local s = {}
for i = 1, #raw, 2 do s[raw[i]] = raw[i + 1] end
if #raw > 0 then
  if s.v ~= '1' then return {'VERSION', s.v or ''} end
  if not (tonumber(s.token) and tonumber(s.ceiling) and tonumber(s.expires) and tonumber(s.ttl) and s.held
      and s.nonce and s.owner and s.incarnation) then
    return {'CORRUPT'}
  end
end
local here = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
local function wake(waiter)
  local instance = string.match(waiter, '^[^:]+')
  redis.call('PUBLISH', 'brainy:wake:' .. instance, waiter)
end
local function wake_next()
  local head = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if head then wake(head) end
end
"""

#: ARGV: mode (grant, force, break), nonce, owner, incarnation, ttl ms, purpose, waiter or "", window of a waiter ms,
#: block or "-" when nobody keeps a floor, first and last token of a block to put in (0, 0: none).
#: Answers: GRANTED token former-holder | HELD ms-left token owner usable-block | BLOCK usable-block token | ABSENT |
#: VERSION v | CORRUPT.
GRANT: Final = (
    _COMMON
    + """
local mode, nonce, owner, incarnation, ttl, purpose = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local waiter, window, block = ARGV[7], tonumber(ARGV[8]), ARGV[9]
local first, last = tonumber(ARGV[10]), tonumber(ARGV[11])
local token = tonumber(s.token or '0')
local usable = ''
if s.replid == here and token < tonumber(s.ceiling or '0') then usable = s.block end

local function arrive()
  if waiter == '' then return end
  if not redis.call('ZSCORE', KEYS[2], waiter) then
    local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
    redis.call('ZADD', KEYS[2], tonumber(newest[2] or '0') + 1, waiter)
  end
  redis.call('ZADD', KEYS[3], now + window, waiter)
  redis.call('PEXPIRE', KEYS[2], 4 * window)
  redis.call('PEXPIRE', KEYS[3], 4 * window)
end

if mode == 'break' and #raw == 0 then return {'ABSENT'} end
if mode == 'grant' then
  local left = 0
  if s.held == '1' then
    if s.server ~= here then
      s.expires = now + math.ceil(tonumber(s.ttl) * 1.1)
      redis.call('HSET', KEYS[1], 'server', here, 'expires', s.expires)
    end
    left = tonumber(s.expires) - now
    if left > 0 and s.nonce == nonce then return {'GRANTED', token, ''} end
    if left > 0 then
      arrive()
      return {'HELD', left, token, s.owner, usable}
    end
  end
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
    redis.call('ZREM', KEYS[2], gone)
    redis.call('ZREM', KEYS[3], gone)
  end
  local head = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if head and head ~= waiter then
    arrive()
    wake(head)
    local until_gone = tonumber(redis.call('ZSCORE', KEYS[3], head) or now) - now
    return {'HELD', math.max(1, until_gone), token, s.owner or '', usable}
  end
end

local ceiling, replid = tonumber(s.ceiling or '0'), s.replid
if block == '-' then
  block, ceiling, replid = '', 0, here
elseif last > 0 then
  if first <= token or last <= ceiling then return {'BLOCK', '', token} end
  token, ceiling, replid = first - 1, last, here
else
  if usable == '' or usable ~= block then return {'BLOCK', usable, token} end
end

token = token + 1
local held = '1'
if mode == 'break' then
  held, incarnation, ttl = '0', '', tonumber(s.ttl)
end
redis.call('HSET', KEYS[1], 'v', '1', 'token', token, 'ceiling', ceiling, 'block', block, 'replid', replid,
  'server', here, 'held', held, 'owner', owner, 'incarnation', incarnation, 'nonce', nonce, 'ttl', ttl,
  'renewals', 0, 'purpose', purpose, 'since', now, 'expires', now + ttl)
if waiter ~= '' then
  redis.call('ZREM', KEYS[2], waiter)
  redis.call('ZREM', KEYS[3], waiter)
end
if mode == 'break' then wake_next() end
return {'GRANTED', token, s.held == '1' and s.owner or ''}
"""
)

_MINE: Final = """
local mine = #raw > 0 and s.token == ARGV[1] and s.owner == ARGV[2] and s.incarnation == ARGV[3]
local function lost()
  return {'LOST', s.token or '', s.held == '1' and s.owner or ''}
end
"""

#: ARGV: token, owner, incarnation, nonce, ttl ms. Answers: RENEWED | LOST token holder | VERSION v | CORRUPT.
RENEW: Final = (
    _COMMON
    + _MINE
    + """
if not mine or s.held ~= '1' then return lost() end
if s.nonce == ARGV[4] then return {'RENEWED'} end
if s.server == here and tonumber(s.expires) <= now then return lost() end
redis.call('HSET', KEYS[1], 'nonce', ARGV[4], 'server', here, 'ttl', ARGV[5], 'since', now, 'expires', now + ARGV[5])
redis.call('HINCRBY', KEYS[1], 'renewals', 1)
return {'RENEWED'}
"""
)

#: ARGV: token, owner, incarnation, nonce. Answers: RELEASED | LOST token holder | VERSION v | CORRUPT.
RELEASE: Final = (
    _COMMON
    + _MINE
    + """
if not mine then return lost() end
if s.held ~= '1' then return {'RELEASED'} end
redis.call('HSET', KEYS[1], 'held', '0', 'nonce', ARGV[4], 'since', now)
wake_next()
return {'RELEASED'}
"""
)

#: ARGV: waiter. Takes a waiter that gave up out of the queue; if the lock is free, the next one is told.
LEAVE: Final = (
    _COMMON
    + """
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if s.held ~= '1' then wake_next() end
return {'LEFT'}
"""
)


def keys(scope: str, name: str) -> list[str]:
    """Return the keys of a lock, in the order the scripts take them."""
    base = f"{prefix(scope)}{name}}}:"
    return [base + "state", base + "queue", base + "alive"]


def prefix(scope: str) -> str:
    """Return what the keys of every lock of a scope begin with; free of characters a pattern gives a meaning."""
    return f"brainy:{{{quote(scope, safe='/:')}#"


def name_of(scope: str, key: str) -> str:
    """Return the name of the lock whose ``state`` key this is."""
    return key.removeprefix(prefix(scope)).removesuffix("}:state")
