-- Writes a checkpoint, or a part of one.
-- KEYS: journal, sessions, queues, meta, checkpoint
-- ARGV: number of this write; first entry of the journal that is still needed, or '' when further parts follow;
-- how many there are of: sessions, parts of queues, parts of queues to remove, sessions to remove, marks, marks to
-- remove; and then those, where something is put as field and value.
-- Returns 1; 0 when the node was fenced; -1 when a later write was here before.
if redis.call('EXISTS', KEYS[1]) == 0 then
	return 0
end
local done = tonumber(redis.call('HGET', KEYS[5], 'write') or '0')
local number = tonumber(ARGV[1])
if number == done then
	return 1 -- the client library repeated it
elseif number < done then
	return -1
end

local at = 9
local function each(count, width, command, key)
	local last = at + count * width - 1
	while at <= last do
		local to = math.min(at + 1999, last) -- Lua's stack has an end
		redis.call(command, key, unpack(ARGV, at, to))
		at = to + 1
	end
end
each(ARGV[3], 2, 'HSET', KEYS[2])
each(ARGV[4], 2, 'HSET', KEYS[3])
each(ARGV[5], 1, 'HDEL', KEYS[3])
each(ARGV[6], 1, 'HDEL', KEYS[2])
each(ARGV[7], 2, 'HSET', KEYS[4])
each(ARGV[8], 1, 'HDEL', KEYS[4])
redis.call('HSET', KEYS[5], 'write', ARGV[1])
if ARGV[2] ~= '' then
	redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
	redis.call('HSET', KEYS[5], 'from', ARGV[2])
end
return 1
