"""Caps in Valkey or Redis: what a user was sent is one packed string, checked and changed by a
script, so that nothing comes between."""

import hashlib
import time
import zlib

import numpy as np

from madang_targeting.caps import Bools, Caps, Sends
from madang_targeting.stores.connection import Connection

_AT_ONCE = 1000
_CAMPAIGN_BYTES = 10

# KEYS: of users. ARGV: record?, campaign, channel, time, now, seconds to keep, then of each cap its
# channel (0: all), most, seconds. A send is 18 bytes: campaign, channel, time.
_SCRIPT = """
local record, campaign = ARGV[1] == '1', ARGV[2]
local channel, time = tonumber(ARGV[3]), tonumber(ARGV[4])
local now, keep = tonumber(ARGV[5]), tonumber(ARGV[6])
local oldest = math.min(time, now) - keep
local caps = {}
for i = 7, #ARGV, 3 do
  caps[#caps + 1] = {tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])}
end
local size = #campaign + 8
local found = {}
for u, key in ipairs(KEYS) do
  local sent = redis.call('GET', key) or ''
  local counts, kept, again, last = {}, {}, false, math.max(time, now)
  for c = 1, #caps do counts[c] = 0 end
  for at = 1, #sent, size do
    local one = sent:sub(at, at + size - 1)
    local of, by, when = one:sub(1, #campaign), struct.unpack('>I4I4', one:sub(#campaign + 1))
    if when > oldest then
      kept[#kept + 1] = one
      last = math.max(last, when)
      if of == campaign then again = true end
      for c, cap in ipairs(caps) do
        if (cap[1] == 0 or cap[1] == by) and math.abs(when - time) < cap[3] then
          counts[c] = counts[c] + 1
        end
      end
    end
  end
  local may = true
  if not again then
    for c, cap in ipairs(caps) do
      if (cap[1] == 0 or cap[1] == channel) and counts[c] >= cap[2] then may = false end
    end
  end
  if record and may and not again then
    kept[#kept + 1] = campaign .. struct.pack('>I4I4', channel, time)
    redis.call('SET', key, table.concat(kept), 'EX', last + keep - now)
  end
  found[u] = may and 1 or 0
end
return found
"""


class RedisCapStore:
    """Implements `CapStore`.

    Args:
        connection: to the store; closed by who made it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._script = connection.client.register_script(_SCRIPT)

    def allowed(self, caps: Caps, sends: Sends) -> Bools:
        """See `CapStore.allowed`."""
        return self._run(caps, sends, record=False)

    def record(self, caps: Caps, sends: Sends) -> Bools:
        """See `CapStore.record`."""
        return self._run(caps, sends, record=True)

    def _run(self, caps: Caps, sends: Sends, *, record: bool) -> Bools:
        # By name, so that channels may be added and sorted anew.
        number = {name: zlib.crc32(name.encode()) for name in caps.channels}
        campaign = hashlib.blake2b(sends.campaign_id.encode(), digest_size=_CAMPAIGN_BYTES).digest()
        arguments: list[bytes | int] = [
            int(record),
            campaign,
            number[sends.channel],
            sends.time,
            int(time.time()),
            caps.keep_seconds(),
        ]
        for cap in caps.caps:
            arguments += [number.get(cap.channel, 0), cap.most, cap.seconds]
        keys = [f"caps:{user}" for user in sends.user_ids]
        run = self._connection.write if record else self._connection.read
        found: list[int] = []
        for at in range(0, len(keys), _AT_ONCE):
            part = keys[at : at + _AT_ONCE]
            (reply,) = run(lambda pipe, part=part: self._script(part, arguments, client=pipe))  # type: ignore[misc]
            found += reply
        return np.array(found, bool)
