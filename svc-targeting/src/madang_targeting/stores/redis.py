"""Caps in Valkey or Redis: what a user was sent is one packed string, checked and changed by a
script, so that nothing comes between."""

import hashlib
from functools import partial
from typing import Any

import numpy as np
import redis

from madang_runtime.changelog.errors import guarded
from madang_targeting.caps import Bools, Caps, Sends

_AT_ONCE = 1000
_CAMPAIGN_BYTES = 10

# KEYS: of users. ARGV: record?, campaign, channel, time, seconds to keep, then of each cap its
# channel (0: all), most, seconds. A send is 15 bytes: campaign, channel, time.
_SCRIPT = """
local record, campaign = ARGV[1] == '1', ARGV[2]
local channel, time, keep = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local caps = {}
for i = 6, #ARGV, 3 do
  caps[#caps + 1] = {tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])}
end
local size = #campaign + 5
local found = {}
for u, key in ipairs(KEYS) do
  local sent = redis.call('GET', key) or ''
  local counts, kept, again = {}, {}, false
  for c = 1, #caps do counts[c] = 0 end
  for at = 1, #sent, size do
    local one = sent:sub(at, at + size - 1)
    local of, by, when = one:sub(1, #campaign), struct.unpack('>BI4', one:sub(#campaign + 1))
    if when > time - keep then
      kept[#kept + 1] = one
      if of == campaign then again = true end
      for c, cap in ipairs(caps) do
        if (cap[1] == 0 or cap[1] == by) and when > time - cap[3] then
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
    kept[#kept + 1] = campaign .. struct.pack('>BI4', channel, time)
    redis.call('SET', key, table.concat(kept), 'EX', keep)
  end
  found[u] = may and 1 or 0
end
return found
"""


class RedisCapStore:
    """Implements `CapStore`.

    Args:
        url: redis:// or rediss://.
        timeout: seconds to connect or wait for a reply.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout
        )
        self._script = self._client.register_script(_SCRIPT)

    def allowed(self, caps: Caps, sends: Sends) -> Bools:
        """See `CapStore.allowed`."""
        return self._run(caps, sends, record=False)

    def record(self, caps: Caps, sends: Sends) -> Bools:
        """See `CapStore.record`."""
        return self._run(caps, sends, record=True)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _run(self, caps: Caps, sends: Sends, *, record: bool) -> Bools:
        number = {name: i for i, name in enumerate(caps.channels, 1)}
        campaign = hashlib.blake2b(sends.campaign_id.encode(), digest_size=_CAMPAIGN_BYTES).digest()
        arguments: list[bytes | int] = [
            int(record),
            campaign,
            number[sends.channel],
            sends.time,
            caps.keep_seconds(),
        ]
        for cap in caps.caps:
            arguments += [number.get(cap.channel, 0), cap.most, cap.seconds]
        keys = [f"caps:{user}" for user in sends.user_ids]
        parts = [keys[at : at + _AT_ONCE] for at in range(0, len(keys), _AT_ONCE)]
        found = [guarded(partial(self._script, part, arguments)) for part in parts]
        return np.array([may for part in found for may in part], bool)
